// Uses every part of layertap_tflm.h, for the compiler to look at.
#include "layertap_tflm.h"

#if __cplusplus >= 202002L
#define CONSTANT constinit
#else
#define CONSTANT
#endif

namespace {

alignas(16) const unsigned char model[64] = {};
alignas(16) uint8_t arena[64];

class Nowhere final : public layertap::Sink {
 public:
  void write(const uint8_t *, size_t) override {}
};

CONSTANT Nowhere link;
CONSTANT layertap::Probe<31, 2, 4, 1> probe(model, sizeof model, link, "a model");
CONSTANT layertap::Probe<9> silent(model, sizeof model);
const uint8_t mask[4] = {1, 2, 3, 4};
CONSTANT layertap::FixedProbe<31> fixed(model, sizeof model, link, mask);
tflite::MicroMutableOpResolver<16> resolver;
layertap::TapResolver tapped(resolver, probe);
layertap::CopyingTapResolver<16> copying(resolver, fixed);

void seen(const layertap::TensorView &view, void *context) {
  *static_cast<const float **>(context) = view.as<float>();
}

}  // namespace

int main() {
  const float *data = nullptr;
  static tflite::MicroInterpreter first(tflite::GetModel(model), tapped, arena, sizeof arena);
  static tflite::MicroInterpreter second(tflite::GetModel(model), copying, arena, sizeof arena);
  static layertap::Board board(probe, first, sizeof arena);
  static layertap::Board<decltype(fixed), 64> other(fixed, second);
  layertap::Accessor<int8_t> tap(1);
  probe.select(mask, sizeof mask);
  probe.select(3, false);
  probe.every(2);
  probe.on(4, seen, &data);
  probe.arena(sizeof arena, 0);
  probe.unbind();
  board.receive(0);
  other.receive(0);
  tapped.release();
  copying.release();
  if (!tap.bind(first) || probe.trouble() != nullptr || silent.inference() > 0) return 1;
  return tap.dequantize(1) > tap.scale() && tap.zero_point() > 0 && tap.dims()->size > 0 &&
         tap.count() > 0 && tap.index() > 0;
}
