// @generated@
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

using Probe = layertap::Probe<model::kTensors, model::kSubgraphs, model::kRules>;

Link host;
Probe probe(model::kData, model::kBytes, host, model::kName);
const char *trouble = nullptr;

tflite::MicroInterpreter &interpreter() {
  static model::Resolver resolver;
  static layertap::TapResolver tapped(resolver, probe);
@interpreter@
  static const TfLiteStatus added = model::add_operators(resolver);
  if (added != kTfLiteOk) trouble = "the operators could not be registered";
  return runs;
}

layertap::Board<Probe> &board() {
  static layertap::Board<Probe> obeys(probe, interpreter(), sizeof arena);
  return obeys;
}

// Without a HELLO, which would say that all is well.
void complain() { layertap_send_answer(host.encoder(), 0, 0, LAYERTAP_FAILED, trouble); }

void start() {
  wire_port::start();
  probe.select(model::kMask, sizeof model::kMask);
  if (interpreter().AllocateTensors() != kTfLiteOk && trouble == nullptr) {
    trouble = "AllocateTensors() failed: the arena may be too small: layertap firmware --arena BYTES";
  }
  if (trouble == nullptr) board();
}

void step() {
  const int byte = wire_port::read();
  if (byte < 0) return;
  if (trouble == nullptr) {
    board().receive(static_cast<uint8_t>(byte));
  } else if (byte == 0xF5) {  // a command begins
    complain();
  }
}

}  // namespace

@entry@
