// Narrow<T> of one ymm register; included within the namespaces of avx2.h and avx512.h, behind load_part() and
// store_part() of fewer values than it has lanes.
//
// A narrow vector is the one whose transposition costs least: rows that lie anywhere become lanes by loads of 16 bytes
// and shuffles within 128 bits. Zen 4 does two of these a clock on ymm registers and one on zmm, where loads of quarter
// registers are one a clock too.

template <class T> struct Narrow;

template <> struct Narrow<float> {
  using scalar = float;
  static constexpr int lanes = 8, depth = 4;  // depth: columns that load_rows() makes at once
  __m256 v;
  Narrow() = default;
  FBP_FN explicit Narrow(__m256 x) : v(x) {}
  FBP_FN explicit Narrow(float x) : v(_mm256_set1_ps(x)) {}
  FBP_FN static Narrow load(const float* p) { return Narrow(_mm256_loadu_ps(p)); }
  FBP_FN static Narrow load_n(const float* p, int n) { return Narrow(load_part(p, n)); }
  FBP_FN void store(float* p) const { _mm256_storeu_ps(p, v); }
  FBP_FN void store_n(float* p, int n) const { store_part(p, n, v); }
};

template <> struct Narrow<double> {
  using scalar = double;
  static constexpr int lanes = 4, depth = 2;
  __m256d v;
  Narrow() = default;
  FBP_FN explicit Narrow(__m256d x) : v(x) {}
  FBP_FN explicit Narrow(double x) : v(_mm256_set1_pd(x)) {}
  FBP_FN static Narrow load(const double* p) { return Narrow(_mm256_loadu_pd(p)); }
  FBP_FN static Narrow load_n(const double* p, int n) { return Narrow(load_part(p, n)); }
  FBP_FN void store(double* p) const { _mm256_storeu_pd(p, v); }
  FBP_FN void store_n(double* p, int n) const { store_part(p, n, v); }
};

FBP_FN Narrow<float> operator+(Narrow<float> a, Narrow<float> b) {
  return Narrow<float>(_mm256_add_ps(a.v, b.v));
}
FBP_FN Narrow<double> operator+(Narrow<double> a, Narrow<double> b) {
  return Narrow<double>(_mm256_add_pd(a.v, b.v));
}
FBP_FN Narrow<float> fma(Narrow<float> a, Narrow<float> b, Narrow<float> c) {
  return Narrow<float>(_mm256_fmadd_ps(a.v, b.v, c.v));
}
FBP_FN Narrow<double> fma(Narrow<double> a, Narrow<double> b, Narrow<double> c) {
  return Narrow<double>(_mm256_fmadd_pd(a.v, b.v, c.v));
}

// Lane i of v[c] = p[at[i] + c].
FBP_FN void load_rows(const float* p, const std::ptrdiff_t (&at)[8], Narrow<float> (&v)[4]) {
  __m256 x[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r)
    x[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + at[r])),
                                _mm_loadu_ps(p + at[r + 4]), 1);
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
  const __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
  const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
  const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
  v[0].v = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
  v[1].v = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
  v[2].v = _mm256_castpd_ps(_mm256_unpacklo_pd(c, d));
  v[3].v = _mm256_castpd_ps(_mm256_unpackhi_pd(c, d));
}
FBP_FN void load_rows(const double* p, const std::ptrdiff_t (&at)[4], Narrow<double> (&v)[2]) {
  __m256d x[2];
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r)
    x[r] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p + at[r])),
                                _mm_loadu_pd(p + at[r + 2]), 1);
  v[0].v = _mm256_unpacklo_pd(x[0], x[1]);
  v[1].v = _mm256_unpackhi_pd(x[0], x[1]);
}
