// @generated@
#include "inputs.h"
#include "layertap_tflm.h"
#include "model.h"
#include "ops.h"
#include "taps.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "wire_port.h"

@version_check@

namespace {

alignas(16) uint8_t arena[model::kArenaBytes];

class Link final : public layertap::Sink {
 public:
  void write(const uint8_t *bytes, size_t count) override { wire_port::write(bytes, count); }
};

Link host;
layertap::FixedProbe<model::kTensors, model::kSubgraphs> probe(model::kData, model::kBytes, host,
                                                               model::kMask, model::kName);
const char *trouble = nullptr;

tflite::MicroInterpreter &interpreter() {
  static model::Resolver resolver;
  static layertap::TapResolver tapped(resolver, probe);
@interpreter@
  static const TfLiteStatus added = model::add_operators(resolver);
  if (added != kTfLiteOk) trouble = "the operators could not be registered";
  return runs;
}

// Without a HELLO, which would say that all is well.
void complain() { layertap_send_answer(host.encoder(), 0, 0, LAYERTAP_FAILED, trouble); }

void start() {
  wire_port::start();
  if (interpreter().AllocateTensors() != kTfLiteOk && trouble == nullptr) {
    trouble = "AllocateTensors() failed: the arena may be too small: layertap firmware --arena BYTES";
  }
  probe.arena(sizeof arena, interpreter().arena_used_bytes());
  if (trouble != nullptr) complain();
}

void step() {
  if (trouble == nullptr && inputs::next(interpreter())) {
    interpreter().Invoke();
  } else {
    wire_port::read();  // what comes means nothing, but may take its time
  }
}

}  // namespace

@entry@
