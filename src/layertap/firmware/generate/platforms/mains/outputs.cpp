// @generated@
#include "accessors.h"
#include "inputs.h"
#include "model.h"
#include "ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "wire_port.h"

@version_check@

namespace {

alignas(16) uint8_t arena[model::kArenaBytes];

model::Taps taps;
const char *trouble = nullptr;

tflite::MicroInterpreter &interpreter() {
  static model::Resolver resolver;
@interpreter@
  static const TfLiteStatus added = model::add_operators(resolver);
  if (added != kTfLiteOk) trouble = "the operators could not be registered";
  return runs;
}

// Thousandths as a whole number, since printf on small systems has no %f.
template <class T>
void print(const char *name, const layertap::Accessor<T> &tap) {
  MicroPrintf("%s: %d elements, scale %d/1000000, zero point %d", name,
              static_cast<int>(tap.count()), static_cast<int>(tap.scale() * 1e6f),
              static_cast<int>(tap.zero_point()));
  for (size_t i = 0; i < tap.count() && i < 4; ++i) {
    MicroPrintf("  [%d] %d/1000", static_cast<int>(i),
                static_cast<int>(tap.dequantize(i) * 1000.0f));
  }
}

void start() {
  wire_port::start();
  if (interpreter().AllocateTensors() != kTfLiteOk && trouble == nullptr) {
    trouble = "AllocateTensors() failed: the arena may be too small: layertap firmware --arena BYTES";
  }
  if (trouble == nullptr && !taps.bind(interpreter())) trouble = "the outputs are not as generated";
  if (trouble != nullptr) MicroPrintf("%s", trouble);
}

void step() {
  if (trouble != nullptr || !inputs::next(interpreter())) {
    wire_port::read();  // what comes means nothing, but may take its time
    return;
  }
  if (interpreter().Invoke() != kTfLiteOk) return;
@print_accessors@}

}  // namespace

@entry@
