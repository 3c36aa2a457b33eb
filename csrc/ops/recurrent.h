// The recurrent cells, written once for every instruction set and CUDA: what happens to one unit of
// one sequence at one step. Their NumPy twins, with the sources of the formulas:
// python/fastbp/reference/recurrent.py.
//
// Of a unit, `a` are the `gates` values of x W + b, `r` those of h U (+ a bias of its own, where
// `two_biases`); h and c the state before the step. forward leaves in `a` what backward reads in
// its place, in `kept` (`keeps` values) what there is besides, and the state after the step in h
// and c. backward turns `a` into da, `kept` into those blocks of dr that differ from da's last
// ones, dh and dc (of the state after the step) into those before it, but for what comes through r.
// c is there where `states` is 2.
//
// To add one: a struct here, a row in FBP_CELLS, its twin, and its layer in
// python/fastbp/recurrent.py.
#pragma once

#include "ops/activations.h"
#include "ops/fbp_fn.h"
#include "ops/math.h"

namespace fastbp {

// h = f(a + r)
template <class Activation> struct SimpleCell {
  static constexpr int gates = 1, states = 1, keeps = 0;
  static constexpr bool two_biases = false;
  template <class V> FBP_FN static void forward(V* a, const V* r, V*, V& h, V&) {
    a[0] = h = Activation::forward(a[0] + r[0], V(0));
  }
  template <class V> FBP_FN static void backward(V* a, V*, V, V, V, V& dh, V&) {
    a[0] = Activation::backward(a[0], dh, V(0));
    dh = V(0);
  }
};
struct RnnTanh : SimpleCell<Tanh> { static constexpr const char* name = "rnn_tanh"; };
struct RnnRelu : SimpleCell<Relu> { static constexpr const char* name = "rnn_relu"; };

// i, f, o = sigmoid, g = tanh of the gates i f g o of a + r;  c = f c + i g;  h = o tanh(c)
struct Lstm {
  static constexpr const char* name = "lstm";
  static constexpr int gates = 4, states = 2, keeps = 0;
  static constexpr bool two_biases = false;
  template <class V> FBP_FN static void forward(V* a, const V* r, V*, V& h, V& c) {
    const V i = sigmoid(a[0] + r[0]), f = sigmoid(a[1] + r[1]);
    const V g = tanh(a[2] + r[2]), o = sigmoid(a[3] + r[3]);
    c = fma(f, c, i * g);
    h = o * tanh(c);
    a[0] = i, a[1] = f, a[2] = g, a[3] = o;
  }
  // tanh(c) is taken anew, which costs less than a place for it.
  template <class V> FBP_FN static void backward(V* a, V*, V, V c_before, V c_after, V& dh, V& dc) {
    const V i = a[0], f = a[1], g = a[2], o = a[3], t = tanh(c_after);
    const V d = fma(dh * o, fnma(t, t, V(1)), dc);
    a[0] = Sigmoid::backward(i, d * g, V(0));
    a[1] = Sigmoid::backward(f, d * c_before, V(0));
    a[2] = Tanh::backward(g, d * i, V(0));
    a[3] = Sigmoid::backward(o, dh * t, V(0));
    dc = d * f;
    dh = V(0);
  }
};

// z, s = sigmoid of the first two gates of a + r;  n = tanh(a_n + s r_n);  h = z h + (1 - z) n
struct Gru {
  static constexpr const char* name = "gru";
  static constexpr int gates = 3, states = 1, keeps = 1;
  static constexpr bool two_biases = true;
  template <class V> FBP_FN static void forward(V* a, const V* r, V* kept, V& h, V&) {
    const V z = sigmoid(a[0] + r[0]), s = sigmoid(a[1] + r[1]);
    const V n = tanh(fma(s, r[2], a[2]));
    h = fma(z, h - n, n);
    a[0] = z, a[1] = s, a[2] = n, kept[0] = r[2];
  }
  template <class V> FBP_FN static void backward(V* a, V* kept, V h_before, V, V, V& dh, V&) {
    const V z = a[0], s = a[1], n = a[2];
    const V dn = Tanh::backward(n, dh * (V(1) - z), V(0));
    a[0] = Sigmoid::backward(z, dh * (h_before - n), V(0));
    a[1] = Sigmoid::backward(s, dn * kept[0], V(0));
    a[2] = dn;
    kept[0] = dn * s;
    dh = dh * z;
  }
};

#define FBP_CELLS(X) X(RnnTanh) X(RnnRelu) X(Lstm) X(Gru)

#define FBP_COUNT(name) +1
inline constexpr int kCellCount = 0 FBP_CELLS(FBP_COUNT);
#undef FBP_COUNT

// What the engine needs to know of a cell.
struct CellInfo {
  const char* name;
  int gates, states, keeps;
  bool two_biases;
};
inline const CellInfo& cell_info(int cell) {
#define FBP_INFO(C) {C::name, C::gates, C::states, C::keeps, C::two_biases},
  static constexpr CellInfo info[] = {FBP_CELLS(FBP_INFO)};
#undef FBP_INFO
  return info[cell];
}

}  // namespace fastbp
