// The arena of a generated firmware's model without and with taps: prints the bytes in use of both,
// and how many bytes of the two arenas differ after an inference, at the same addresses.
#include <cstdio>
#include <cstring>
#include <new>

#include "layertap_tflm.h"
#include "model.h"
#include "ops.h"
#include "taps.h"
#ifdef __arm__
#include "uart.h"
#endif

namespace {

alignas(16) uint8_t arena[model::kArenaBytes];
uint8_t before[sizeof arena];
alignas(tflite::MicroInterpreter) uint8_t room[sizeof(tflite::MicroInterpreter)];
int seen = 0;

class Counter final : public layertap::Sink {
 public:
  void write(const uint8_t *, size_t) override { ++seen; }
};

Counter sink;
layertap::Probe<model::kTensors, model::kSubgraphs> probe(model::kData, model::kBytes, sink);

/* Bytes in use after an inference with inputs of zeros; 0 if it failed. */
unsigned long used(const tflite::MicroOpResolver &resolver) {
  memset(arena, 0xA5, sizeof arena);
  auto *runs = new (room)
      tflite::MicroInterpreter(tflite::GetModel(model::kData), resolver, arena, sizeof arena);
  if (runs->AllocateTensors() != kTfLiteOk) return 0;
  for (size_t i = 0; i < runs->inputs_size(); ++i) {
    memset(runs->input(i)->data.raw, 0, runs->input(i)->bytes);
  }
  return runs->Invoke() == kTfLiteOk ? static_cast<unsigned long>(runs->arena_used_bytes()) : 0;
}

}  // namespace

int main() {
#ifdef __arm__
  uart_start();
#endif
  static model::Resolver resolver;
  if (model::add_operators(resolver) != kTfLiteOk) return 1;
  static layertap::TapResolver tapped(resolver, probe);
  used(resolver); /* kernels copy structures with what the stack held before in their gaps */
  const unsigned long plain = used(resolver);
  memcpy(before, arena, sizeof arena);
  const unsigned long with_taps = used(tapped);
  int differ = 0;
  for (size_t i = 0; i < sizeof arena; ++i) differ += arena[i] != before[i];
  printf("plain %lu tapped %lu differ %d seen %d\n", plain, with_taps, differ, seen);
  fflush(stdout);
}
