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

template <class T, class Cell> static void cell_forward(const CellArgs<T>& s) {
  using V = Item<T>;
  constexpr int gates = Cell::gates;
  for (index_t i = 0; i < s.rows; ++i) {
    T* a = s.a + i * s.a_row;
    const T* r = s.r + i * s.r_row;
    const index_t at = i * s.units;
    const bool running = !s.lengths || s.step < s.lengths[i];
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

template <class T, class Cell> static void cell_backward(const CellArgs<T>& s) {
  using V = Item<T>;
  constexpr int gates = Cell::gates, same = gates - Cell::keeps;
  for (index_t i = 0; i < s.rows; ++i) {
    T* a = s.a + i * s.a_row;
    T* dr = s.dr ? s.dr + i * gates * s.units : nullptr;
    const index_t at = i * s.units;
    const bool running = !s.lengths || s.step < s.lengths[i];
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
