// Sums over k of a matrix Y stored by columns, for products with few rows: the lanes of narrow vectors are columns
// of Y, transposed in registers as they are read. An element's sum goes on in its lane in the order of k, so that four
// clocks pass from one term to the next: several groups of lanes are summed side by side, which are other columns,
// or other chunks of the same ones.

// Sums worth it: long ones. Whole vectors of float64 take 24 shuffles for 64 values, so that narrow ones gain where nothing
// else is done.
static constexpr index_t kNarrowDepth = 64;
template <class T> FBP_FN static constexpr bool is_narrow(index_t rows, index_t k) {
  return kVectorsAreRegisters && k >= kNarrowDepth && (sizeof(T) == 4 || rows == 1);
}

// Groups of lanes side by side for `rows` rows of sums, as registers allow.
FBP_FN static constexpr int column_groups(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 2 : 1; }
// X is read by rows; from kSideBySide rows on they lie side by side, [k][side_by_side()]: one pointer instead of many.
static constexpr int kSideBySide = 5;
template <class T> FBP_FN static constexpr index_t side_by_side(index_t rows) {
  return rows < kSideBySide ? 1
                            : (rows + Narrow<T>::lanes - 1) / Narrow<T>::lanes * Narrow<T>::lanes;
}

// Bytes that a column of Y is asked for ahead: without it sums from L3 were a quarter slower, from memory half.
static constexpr int kColumnsAhead = 128;

template <class T> struct ColumnSums {
  const T* y[4];                        // by group: the first lane, from where k starts
  std::ptrdiff_t at[Narrow<T>::lanes];  // the lanes of a group, from the first one
  const T* x;
  index_t x_row;
  index_t
      x_group;  // from the values of X for one group to those for the next; 0 where they share them
  index_t k;
  T* sums;  // [group][row][lane]
};

// Keeps the compiler from making a pointer of its own, which it would spill, of every row that is read from p.
template <class T> FBP_FN static const T* one_pointer(const T* p) {
#if defined(__GNUC__)
  asm("" : "+r"(p));
#endif
  return p;
}

// The sums of the groups with the pointers to where k goes on.
template <class T, int Rows, int Groups> struct ColumnState {
  Narrow<T> sum[Groups][Rows];
  const T* y[Groups];
  const T* x;
  std::ptrdiff_t at[Narrow<T>::lanes];
};

// sum += x y for as many values of k as load_rows() gives at once. Unit: which of the four of a line of memory, to
// ask for a quarter of the groups' lines ahead; no line is asked for where it's 4.
template <class T, int Rows, int Groups, bool Apart, int Unit>
FBP_FN static void add_unit(ColumnState<T, Rows, Groups>& s, index_t x_row, index_t x_group) {
  using N = Narrow<T>;
  constexpr index_t x_col = side_by_side<T>(Rows);
  constexpr int part = N::lanes / 4;
#pragma GCC unroll 4
  for (int g = 0; g < Groups; ++g) {
    N column[N::depth];
    s.y[g] = one_pointer(s.y[g]);
    load_rows(s.y[g], s.at, column);
    if constexpr (Unit < 4)
#pragma GCC unroll 2
      for (int i = 0; i < part; ++i)
        __builtin_prefetch(one_pointer(s.y[g] + s.at[Unit * part + i]) + kColumnsAhead / sizeof(T));
    s.y[g] += N::depth;
#pragma GCC unroll 4
    for (int q = 0; q < N::depth; ++q)
#pragma GCC unroll 12
      for (int i = 0; i < Rows; ++i)
        s.sum[g][i] =
            fma(N(s.x[i * x_row + q * x_col + (Apart ? g * x_group : 0)]), column[q], s.sum[g][i]);
  }
  s.x += N::depth * x_col;
}

template <class T, int Rows, int Groups, bool Apart>
static void add_columns(const ColumnSums<T>& args) {
  using N = Narrow<T>;
  constexpr index_t line = 4 * N::depth;
  ColumnState<T, Rows, Groups> s;
#pragma GCC unroll 4
  for (int g = 0; g < Groups; ++g) {
    s.y[g] = args.y[g];
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) s.sum[g][i] = N::load(args.sums + (g * Rows + i) * N::lanes);
  }
#pragma GCC unroll 8
  for (int i = 0; i < N::lanes; ++i) s.at[i] = args.at[i];
  s.x = args.x;
  constexpr index_t x_col = side_by_side<T>(Rows);
  const index_t x_row = Rows >= kSideBySide ? 1 : args.x_row, x_group = args.x_group;
  index_t left = args.k;
  for (; left >= line; left -= line) {
    add_unit<T, Rows, Groups, Apart, 0>(s, x_row, x_group);
    add_unit<T, Rows, Groups, Apart, 1>(s, x_row, x_group);
    add_unit<T, Rows, Groups, Apart, 2>(s, x_row, x_group);
    add_unit<T, Rows, Groups, Apart, 3>(s, x_row, x_group);
  }
  for (; left >= N::depth; left -= N::depth) add_unit<T, Rows, Groups, Apart, 4>(s, x_row, x_group);
  for (; left > 0; --left, s.x += x_col)
    for (int g = 0; g < Groups; ++g) {
      T column[N::lanes];
      for (int i = 0; i < N::lanes; ++i) column[i] = s.y[g][s.at[i]];
      ++s.y[g];
      for (int i = 0; i < Rows; ++i)
        s.sum[g][i] =
            fma(N(s.x[i * x_row + (Apart ? g * x_group : 0)]), N::load(column), s.sum[g][i]);
    }
#pragma GCC unroll 4
  for (int g = 0; g < Groups; ++g)
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) s.sum[g][i].store(args.sums + (g * Rows + i) * N::lanes);
}

template <class T> using AddColumns = void (*)(const ColumnSums<T>&);

// By groups, from 1; of columns, or of chunks.
template <class T, int Rows> struct ColumnKernels {
  AddColumns<T> get[2][column_groups(Rows)];

  template <int Groups> constexpr void fill() {
    get[0][Groups - 1] = add_columns<T, Rows, Groups, false>;
    get[1][Groups - 1] = add_columns<T, Rows, Groups, true>;
    if constexpr (Groups > 1) fill<Groups - 1>();
  }
  constexpr ColumnKernels() : get{} { fill<column_groups(Rows)>(); }
};
template <class T, int Rows> static constexpr ColumnKernels<T, Rows> kColumnKernels{};
