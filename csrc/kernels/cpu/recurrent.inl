// One step of a recurrent cell over some sequences: what lies between its matrix products.

// The vectors of a row's gate blocks at column j.
template <class V, int Count>
FBP_FN static void load_gates(const typename V::scalar* row, index_t units, index_t j, int lanes,
                              V* out) {
  for (int g = 0; g < Count; ++g) out[g] = load<V>(row + g * units + j, lanes);
}
template <class V, int Count>
FBP_FN static void store_gates(const V* in, typename V::scalar* row, index_t units, index_t j,
                               int lanes) {
  for (int g = 0; g < Count; ++g) store(in[g], row + g * units + j, lanes);
}

// 0 where there is no such matrix.
template <class V>
FBP_FN static V load_or_zero(const typename V::scalar* p, index_t at, int lanes) {
  return p ? load<V>(p + at, lanes) : V(typename V::scalar(0));
}

// body(j, lanes) for the vectors of a row.
template <class V, class Body> FBP_FN static void for_units(index_t units, Body body) {
  index_t j = 0;
  for (; j + V::lanes <= units; j += V::lanes) body(j, V::lanes);
  if (j < units) body(j, int(units - j));
}

// Whether sequence i is not behind its end.
template <class T> FBP_FN static bool is_running(const CellArgs<T>& s, index_t i) {
  return !s.lengths || s.step < s.lengths[i];
}

template <class T, class Cell> static void forward_rows(const CellArgs<T>& s) {
  using V = Item<T>;
  constexpr int gates = Cell::gates;
  for (index_t i = 0; i < s.rows; ++i) {
    T* a = s.a + i * s.a_row;
    const T* r = s.r + i * s.r_row;
    const index_t at = i * s.units;
    const bool running = is_running(s, i);
    for_units<V>(s.units, [&](index_t j, int lanes) {
      V va[gates], vr[gates], kept[1] = {V(T(0))}, c(T(0));
      V h = load_or_zero<V>(s.h, i * s.h_row + j, lanes);
      if (Cell::states == 2) c = load_or_zero<V>(s.c, i * s.c_row + j, lanes);
      if (running) {
        load_gates<V, gates>(a, s.units, j, lanes, va);
        load_gates<V, gates>(r, s.units, j, lanes, vr);
        Cell::forward(va, vr, kept, h, c);
        store_gates<V, gates>(va, a, s.units, j, lanes);
        if (Cell::keeps) store(kept[0], s.kept + at + j, lanes);
      }
      store(h, s.h_next + i * s.h_next_row + j, lanes);
      if (Cell::states == 2) store(c, s.c_next + at + j, lanes);
    });
  }
}

template <class T, class Cell> static void backward_rows(const CellArgs<T>& s) {
  using V = Item<T>;
  constexpr int gates = Cell::gates, same = gates - Cell::keeps;
  for (index_t i = 0; i < s.rows; ++i) {
    T* a = s.a + i * s.a_row;
    T* dr = s.dr ? s.dr + i * gates * s.units : nullptr;
    const index_t at = i * s.units;
    const bool running = is_running(s, i);
    for_units<V>(s.units, [&](index_t j, int lanes) {
      V dh = load_or_zero<V>(s.dh_behind, i * s.dh_row + j, lanes);
      if (s.through) dh = dh + load<V>(s.through + at + j, lanes);
      if (s.dy) dh = dh + load<V>(s.dy + i * s.dy_row + j, lanes);
      V va[gates], kept[1] = {V(T(0))}, dc(T(0));
      for (V& gate : va) gate = V(T(0));
      if (Cell::states == 2) dc = load_or_zero<V>(s.dc_behind, at + j, lanes);
      if (running) {
        V before(T(0)), after(T(0));
        if (Cell::states == 2) {
          before = load_or_zero<V>(s.c, i * s.c_row + j, lanes);
          after = load<V>(s.c_next + at + j, lanes);
        }
        load_gates<V, gates>(a, s.units, j, lanes, va);
        if (Cell::keeps) kept[0] = load<V>(s.kept + at + j, lanes);
        const V h = load_or_zero<V>(s.h, i * s.h_row + j, lanes);
        Cell::backward(va, kept, h, before, after, dh, dc);
      }
      store_gates<V, gates>(va, a, s.units, j, lanes);
      if (Cell::keeps) {
        store(kept[0], s.kept + at + j, lanes);
        store_gates<V, same>(va, dr, s.units, j, lanes);
        store(kept[0], dr + same * s.units + j, lanes);
      }
      store(dh, s.dh + i * s.dh_row + j, lanes);
      if (Cell::states == 2) store(dc, s.dc + at + j, lanes);
    });
  }
}

// Rows of few units go through a cell side by side, as one row of all their units, instead of a part of a
// vector each. Of (rows, gates, units) become (gates, rows, units).

// Values of such a row for each gate.
template <class T> constexpr index_t kNarrowRow = 8 * Item<T>::lanes;

// Whether that halves the vectors of enough rows to be worth the copies.
template <class T> static bool is_narrow(const CellArgs<T>& s) {
  constexpr index_t lanes = Item<T>::lanes;
  return 2 * s.units <= lanes && s.rows >= 4 && s.rows >= 2 * parts_of(s.rows * s.units, lanes);
}

// Blocks of some units: where the first one is, and how far apart they lie, row by row and gate by gate.
template <class T> struct UnitBlocks {
  T* data;
  index_t row, gate;
};

// Copies the blocks of some rows and gates. The compiler knows of all numbers of units that are few, and
// moves a block at once.
template <class T, index_t Units = 1>
static void copy_blocks(index_t units, index_t rows, index_t gates, UnitBlocks<const T> from,
                        UnitBlocks<T> to) {
  if constexpr (2 * Units <= Item<T>::lanes) {
    if (units != Units) return copy_blocks<T, Units + 1>(units, rows, gates, from, to);
    for (index_t i = 0; i < rows; ++i)
      for (index_t g = 0; g < gates; ++g) {
        const T* values = from.data + i * from.row + g * from.gate;
        T* copies = to.data + i * to.row + g * to.gate;
        T block[Units];
        for (index_t j = 0; j < Units; ++j) block[j] = values[j];
        for (index_t j = 0; j < Units; ++j) copies[j] = block[j];
      }
  }
}

// Some rows of few units.
struct NarrowRows {
  index_t units, count;

  // Where they lie side by side: in place, or in `room`, to which they are copied.
  template <class T> const T* lined_up(const T* rows, index_t row, index_t gates, T* room) const {
    if (!rows || (gates == 1 && row == units)) return rows;
    copy_blocks<T>(units, count, gates, {rows, row, units}, {room, units, count * units});
    return room;
  }
  // What is left in `room` to the rows; nothing where `lined` is another place.
  template <class T>
  void put_back(const T* lined, const T* room, T* rows, index_t row, index_t gates) const {
    if (lined == room)
      copy_blocks<T>(units, count, gates, {room, units, count * units}, {rows, row, units});
  }
};

// `count` rows from number `first` on.
template <class T>
static CellArgs<T> some_rows(CellArgs<T> s, index_t first, index_t count, index_t gates) {
  const auto from = [&](auto*& rows, index_t row) {
    if (rows) rows += first * row;
  };
  from(s.a, s.a_row), from(s.r, s.r_row), from(s.dr, gates * s.units);
  from(s.h, s.h_row), from(s.h_next, s.h_next_row), from(s.c, s.c_row), from(s.c_next, s.units);
  from(s.kept, s.units), from(s.lengths, 1), from(s.dy, s.dy_row), from(s.through, s.units);
  from(s.dh_behind, s.dh_row), from(s.dh, s.dh_row), from(s.dc_behind, s.units),
      from(s.dc, s.units);
  s.rows = count;
  return s;
}

// apart(rows) for those that are behind their end, together(rows) for the others, as many as there is
// room for.
template <class T, class Apart, class Together>
FBP_FN static void for_narrow(const CellArgs<T>& s, index_t gates, Apart apart, Together together) {
  const index_t most = kNarrowRow<T> / s.units;
  for (index_t first = 0; first < s.rows;) {
    index_t count = 0;
    while (count < most && first + count < s.rows && is_running(s, first + count)) ++count;
    if (count > 0)
      together(some_rows(s, first, count, gates));
    else
      apart(some_rows(s, first, 1, gates));
    first += count > 0 ? count : 1;
  }
}

// The rows, none behind its end, as one; what does not lie side by side is to be lined up.
template <class T> static CellArgs<T> as_one_row(CellArgs<T> s) {
  s.units *= s.rows;
  s.rows = 1, s.lengths = nullptr;
  return s;
}

template <class T, class Cell> static void forward_together(const CellArgs<T>& s) {
  constexpr index_t gates = Cell::gates, room = kNarrowRow<T>;
  T a[gates * room], r[gates * room], h[room], h_next[room], c[room];
  const NarrowRows rows{s.units, s.rows};
  CellArgs<T> one = as_one_row(s);
  if (rows.lined_up(s.a, s.a_row, gates, a) == a) one.a = a;
  one.r = rows.lined_up(s.r, s.r_row, gates, r);
  one.h = rows.lined_up(s.h, s.h_row, 1, h);
  one.c = rows.lined_up(s.c, s.c_row, 1, c);
  if (s.h_next_row != s.units) one.h_next = h_next;
  forward_rows<T, Cell>(one);
  rows.put_back(one.a, a, s.a, s.a_row, gates);
  rows.put_back(one.h_next, h_next, s.h_next, s.h_next_row, 1);
}

template <class T, class Cell> static void backward_together(const CellArgs<T>& s) {
  constexpr index_t gates = Cell::gates, room = kNarrowRow<T>;
  T a[gates * room], dr[gates * room], h[room], c[room], dy[room], dh_behind[room], dh[room];
  const NarrowRows rows{s.units, s.rows};
  CellArgs<T> one = as_one_row(s);
  if (rows.lined_up(s.a, s.a_row, gates, a) == a) one.a = a;
  one.h = rows.lined_up(s.h, s.h_row, 1, h);
  one.c = rows.lined_up(s.c, s.c_row, 1, c);
  one.dy = rows.lined_up(s.dy, s.dy_row, 1, dy);
  one.dh_behind = rows.lined_up(s.dh_behind, s.dh_row, 1, dh_behind);
  if (s.dh_row != s.units) one.dh = dh;
  if (Cell::keeps) one.dr = dr;
  backward_rows<T, Cell>(one);
  rows.put_back(one.a, a, s.a, s.a_row, gates);
  rows.put_back(one.dh, dh, s.dh, s.dh_row, 1);
  if (Cell::keeps) rows.put_back(one.dr, dr, s.dr, gates * s.units, gates);
}

template <class T, class Cell> static void cell_forward(const CellArgs<T>& s) {
  if (!is_narrow(s)) return forward_rows<T, Cell>(s);
  for_narrow(s, Cell::gates, forward_rows<T, Cell>, forward_together<T, Cell>);
}

template <class T, class Cell> static void cell_backward(const CellArgs<T>& s) {
  if (!is_narrow(s)) return backward_rows<T, Cell>(s);
  for_narrow(s, Cell::gates, backward_rows<T, Cell>, backward_together<T, Cell>);
}
