// A firmware as it is before layertap (PART 0), and with ever more of it: 1 a TapResolver around 16
// types of operators and an observer that does nothing; 2 a Probe with a callback and no link, in
// that one's place; 3 a Probe with a link; 4 and a Board; 5 and slices and reductions. It is never
// run.
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#if PART > 0
#include "layertap_tflm.h"
#endif

namespace {

alignas(16) const unsigned char model[64] = {};
alignas(16) uint8_t arena[64];
tflite::MicroMutableOpResolver<16> resolver;

#if PART == 1
TfLiteStatus run(TfLiteContext *context, TfLiteNode *node, layertap::Kernel kernel,
                 layertap::Observer &) {
  return kernel(context, node);
}
layertap::Observer probe(run);
#elif PART == 2
layertap::Probe<31, 1, 0, 1> probe(model, sizeof model);
void seen(const layertap::TensorView &view, void *) { arena[0] = view.as<uint8_t>()[0]; }
#elif PART > 2
class Link final : public layertap::Sink {
 public:
  void write(const uint8_t *bytes, size_t) override { arena[0] = bytes[0]; }
};
Link link;
layertap::Probe<31, 1, PART == 5 ? 4 : 0> probe(model, sizeof model, link, "a model");
#endif
#if PART > 0
layertap::TapResolver tapped(resolver, probe);
#else
tflite::MicroOpResolver &tapped = resolver;
#endif

}  // namespace

int main() {
  resolver.AddConv2D();
  resolver.AddSoftmax();
  static tflite::MicroInterpreter interpreter(tflite::GetModel(model), tapped, arena, sizeof arena);
  interpreter.AllocateTensors();
  interpreter.input(0)->data.uint8[0] = arena[0];
#if PART == 2
  probe.on(1, seen);
#endif
#if PART > 3
  static layertap::Board board(probe, interpreter, sizeof arena);
  for (;;) board.receive(arena[1]);
#endif
  return interpreter.Invoke();
}
