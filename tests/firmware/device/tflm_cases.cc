// What the parts of layertap_tflm.h promise, on a real TensorFlow Lite Micro. Prints "ok NAME" or
// "FAILED NAME: line, condition" for each case, then "end".
#include <cstdio>
#include <cstring>
#include <new>

#include "layertap_tflm.h"
#include "tflm_models.h"
#ifdef __arm__
#include "uart.h"
#endif

namespace {

using layertap::TensorView;

alignas(16) uint8_t arenas[2][16384];

const char *failed = nullptr;
int failed_line = 0;

#define CHECK(condition)                       \
  do {                                         \
    if (!(condition) && failed == nullptr) {   \
      failed = #condition;                     \
      failed_line = __LINE__;                  \
    }                                          \
  } while (0)

/* The custom operator: copies its input, or fails. */
TfLiteStatus choosy_status = kTfLiteOk;

TfLiteStatus choosy(TfLiteContext *context, TfLiteNode *node) {
  const TfLiteEvalTensor *input = context->GetEvalTensor(context, node->inputs->data[0]);
  TfLiteEvalTensor *output = context->GetEvalTensor(context, node->outputs->data[0]);
  memcpy(output->data.f, input->data.f, 8 * sizeof(float));
  return choosy_status;
}

const TFLMRegistration choosy_registration = {nullptr, nullptr, nullptr, choosy,
                                              nullptr, 0,       nullptr};

using Ops = tflite::MicroMutableOpResolver<6>;

void add(Ops &ops) {
  ops.AddRelu();
  ops.AddAdd();
  ops.AddLess();
  ops.AddIf();
  ops.AddWhile();
  ops.AddCustom("Choosy", &choosy_registration);
}

struct Runner {
  Runner(const unsigned char *model, const tflite::MicroOpResolver &ops, int arena)
      : interpreter(tflite::GetModel(model), ops, arenas[arena], sizeof arenas[arena]) {}

  bool ready() { return interpreter.AllocateTensors() == kTfLiteOk; }

  /* x is -3, -2, ... 4. */
  TfLiteStatus run(int steps = -1) {
    const size_t x = steps < 0 ? 0 : 1;
    for (int i = 0; i < 8; ++i) interpreter.input(x)->data.f[i] = static_cast<float>(i - 3);
    if (steps >= 0) interpreter.input(0)->data.i32[0] = steps;
    return interpreter.Invoke();
  }

  tflite::MicroInterpreter interpreter;
};

/* An interpreter that finds no operator: one whose destructor must not run, since TensorFlow Lite
 * Micro then frees operators that it never had. */
bool is_refused(const unsigned char *model, const tflite::MicroOpResolver &ops) {
  alignas(Runner) static uint8_t room[sizeof(Runner)];
  return !(new (room) Runner(model, ops, 1))->ready();
}

struct Seen {
  int count = 0;
  float last = 0;
  TensorView view = {};
};

void see(const TensorView &view, void *context) {
  Seen &seen = *static_cast<Seen *>(context);
  ++seen.count;
  seen.view = view;
  if (view.as<float>() != nullptr) seen.last = view.as<float>()[7];
}

/* Keeps what is sent. */
class Memory final : public layertap::Sink {
 public:
  void write(const uint8_t *bytes, size_t count) override {
    for (size_t i = 0; i < count && used < sizeof kept; ++i) kept[used++] = bytes[i];
  }

  /* How many frames of a type there are: 00 F5, a code, the type. */
  int frames(uint8_t type) const {
    int found = 0;
    for (size_t i = 0; i + 3 < used; ++i) {
      found += kept[i] == 0 && kept[i + 1] == 0xF5 && kept[i + 3] == type;
    }
    return found;
  }

  bool says(const char *text) const {
    const size_t length = strlen(text);
    for (size_t i = 0; i + length <= used; ++i) {
      if (memcmp(kept + i, text, length) == 0) return true;
    }
    return false;
  }

  uint8_t kept[8192] = {};
  size_t used = 0;
};

void callbacks() {
  Seen y, z, wrong;
  layertap::Probe<3, 1, 0, 3> probe(kChain, kChainBytes);
  CHECK(probe.on(1, see, &y));
  CHECK(probe.on(2, see, &z));
  CHECK(!probe.on(3, see, &wrong));
  CHECK(probe.on(0, see, &wrong));
  CHECK(!probe.on(1, see, &wrong));
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  CHECK(runner.run() == kTfLiteOk);
  CHECK(runner.run() == kTfLiteOk);
  CHECK(y.count == 2 && z.count == 2 && wrong.count == 2);
  CHECK(y.last == 4 && y.view.type == kTfLiteFloat32 && y.view.bytes == 32);
  CHECK(y.view.dims->size == 2 && y.view.dims->data[1] == 8);
  CHECK(y.view.inference == 1 && y.view.subgraph == 0 && y.view.tensor == 1);
  CHECK(y.view.iteration == 0 && y.view.as<int8_t>() == nullptr);
  CHECK(probe.trouble() == nullptr);
  tapped.release();
}

void iterations() {
  Seen doubled, more;
  layertap::Probe<20, 5, 0, 2> probe(kLoops, kLoopsBytes);
  CHECK(probe.on(7 + 4 + 4, see, &doubled));
  CHECK(probe.on(7 + 3, see, &more));
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kLoops, tapped, 0);
  CHECK(runner.ready());
  CHECK(runner.run(3) == kTfLiteOk);
  CHECK(doubled.count == 3 && more.count == 4);
  CHECK(doubled.view.iteration == 2 && doubled.view.subgraph == 2 && doubled.last == 32);
  CHECK(runner.run(0) == kTfLiteOk);
  CHECK(doubled.count == 3 && more.count == 5 && more.view.iteration == 0);
  tapped.release();
}

/* The very arena, byte for byte, at the same addresses. */
void arena_is_unchanged() {
  static uint8_t before[sizeof arenas[0]];
  alignas(Runner) static uint8_t room[sizeof(Runner)];
  Seen seen;
  layertap::Probe<20, 5, 0, 1> probe(kLoops, kLoopsBytes);
  CHECK(probe.on(7 + 4 + 4, see, &seen));
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  const tflite::MicroOpResolver *const resolvers[] = {&ops, &tapped};
  size_t used[2];
  for (int i = 0; i < 2; ++i) {
    memset(arenas[0], 0xA5, sizeof arenas[0]);
    Runner *runner = new (room) Runner(kLoops, *resolvers[i], 0);
    CHECK(runner->ready());
    CHECK(runner->run(2) == kTfLiteOk);
    used[i] = runner->interpreter.arena_used_bytes();
    if (i == 0) memcpy(before, arenas[0], sizeof before);
  }
  CHECK(seen.count == 2);
  CHECK(used[0] == used[1]);
  CHECK(memcmp(before, arenas[0], sizeof before) == 0);
  tapped.release();
}

/* Interpreters that share the inner resolver, one of them with another model, run untapped. */
void other_interpreters_are_left_alone() {
  Seen seen;
  layertap::Probe<3, 1, 0, 1> probe(kChain, kChainBytes);
  CHECK(probe.on(1, see, &seen));
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner first(kChain, tapped, 0);
  CHECK(first.ready());
  {
    Runner other(kLoops, ops, 1);
    CHECK(other.ready());
    CHECK(other.run(3) == kTfLiteOk);
    CHECK(other.interpreter.output(0)->data.f[7] == 32);
    CHECK(seen.count == 0);
  }
  CHECK(first.run() == kTfLiteOk);
  CHECK(seen.count == 1);
  Runner second(kChain, ops, 1);
  CHECK(second.ready());
  CHECK(second.run() == kTfLiteOk);
  CHECK(second.interpreter.output(0)->data.f[7] == 4);
  CHECK(seen.count == 1);
  probe.unbind();
  CHECK(second.run() == kTfLiteOk);
  CHECK(first.run() == kTfLiteOk);
  CHECK(seen.count == 2);
  tapped.release();
}

void two_probes() {
  Seen in_chain, in_loops;
  layertap::Probe<3, 1, 0, 1> chain(kChain, kChainBytes);
  layertap::Probe<20, 5, 0, 1> loops(kLoops, kLoopsBytes);
  CHECK(chain.on(1, see, &in_chain));
  CHECK(loops.on(3, see, &in_loops));
  Ops chain_ops, loops_ops;
  add(chain_ops);
  add(loops_ops);
  layertap::TapResolver chain_tapped(chain_ops, chain);
  layertap::TapResolver loops_tapped(loops_ops, loops);
  Runner a(kChain, chain_tapped, 0), b(kLoops, loops_tapped, 1);
  CHECK(a.ready());
  CHECK(b.ready());
  CHECK(a.run() == kTfLiteOk);
  CHECK(b.run(1) == kTfLiteOk);
  CHECK(a.run() == kTfLiteOk);
  CHECK(in_chain.count == 2 && in_chain.last == 4);
  CHECK(in_loops.count == 1 && in_loops.last == 8);
  chain_tapped.release();
  CHECK(b.run(1) == kTfLiteOk);
  CHECK(in_loops.count == 2);
  loops_tapped.release();
}

void one_tap_resolver_per_resolver() {
  layertap::Probe<3> probe(kChain, kChainBytes);
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe), again(ops, probe);
  Runner first(kChain, tapped, 0);
  CHECK(first.ready());
  CHECK(is_refused(kChain, again));
  CHECK(first.run() == kTfLiteOk);
  tapped.release();
}

void released() {
  Seen seen;
  layertap::Probe<3, 1, 0, 1> probe(kChain, kChainBytes);
  CHECK(probe.on(1, see, &seen));
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  CHECK(runner.run() == kTfLiteOk);
  tapped.release();
  tapped.release();
  CHECK(runner.run() == kTfLiteOk);
  CHECK(seen.count == 1);
  layertap::TapResolver again(ops, probe);
  Runner other(kChain, again, 1);
  CHECK(other.ready());
  probe.unbind();
  CHECK(other.run() == kTfLiteOk);
  CHECK(seen.count == 2);
  again.release();
}

void copies() {
  Seen seen;
  layertap::Probe<20, 5, 0, 1> probe(kLoops, kLoopsBytes);
  CHECK(probe.on(3, see, &seen));
  Ops ops;
  add(ops);
  const Ops &constant = ops;
  layertap::CopyingTapResolver<5> tapped(constant, probe);
  layertap::CopyingTapResolver<2> small(constant, probe);
  Runner runner(kLoops, tapped, 0), plain(kLoops, ops, 1);
  CHECK(runner.ready());
  CHECK(plain.ready());
  CHECK(plain.run(1) == kTfLiteOk);
  CHECK(seen.count == 0);
  CHECK(runner.run(1) == kTfLiteOk);
  CHECK(seen.count == 1 && seen.last == 8);
  CHECK(is_refused(kLoops, small));
  small.release();
  tapped.release();
}

/* Room for less than the model has: said, and nothing beyond the Probe is written. */
void too_small() {
  Memory sink;
  layertap::Probe<19, 5> few_tensors(kLoops, kLoopsBytes, sink);
  layertap::Probe<20, 4> few_subgraphs(kLoops, kLoopsBytes, sink);
  CHECK(strstr(few_tensors.trouble(), "more tensors") != nullptr);
  CHECK(strstr(few_subgraphs.trouble(), "more subgraphs") != nullptr);
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, few_tensors);
  Runner runner(kLoops, tapped, 0);
  CHECK(runner.ready());
  CHECK(runner.run(2) == kTfLiteOk);
  CHECK(runner.interpreter.output(0)->data.f[7] == 16);
  CHECK(sink.frames(LAYERTAP_TENSOR) == 0 && sink.frames(LAYERTAP_HELLO) == 1);
  CHECK(sink.says("the model has more tensors than the Probe has room for"));
  tapped.release();
}

void another_model() {
  Memory sink;
  layertap::Probe<20, 5> probe(kLoops, kLoopsBytes, sink);
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  CHECK(runner.run() == kTfLiteOk);
  CHECK(runner.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_ANSWER) == 1 && sink.frames(LAYERTAP_TENSOR) == 0);
  CHECK(sink.says("another model than the Probe"));
  tapped.release();
}

void failing_kernel() {
  Memory sink;
  layertap::Probe<3> probe(kChain, kChainBytes, sink);
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  choosy_status = kTfLiteError;
  CHECK(runner.run() == kTfLiteError);
  choosy_status = kTfLiteOk;
  CHECK(sink.frames(LAYERTAP_DONE) == 1 && sink.frames(LAYERTAP_TENSOR) == 2);
  CHECK(runner.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_DONE) == 2 && sink.frames(LAYERTAP_TENSOR) == 5);
  tapped.release();
}

void every_so_many() {
  Memory sink;
  layertap::Probe<3> probe(kChain, kChainBytes, sink);
  probe.every(4);
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  for (int i = 0; i < 17; ++i) CHECK(runner.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_TENSOR) == 5 * 3 && sink.frames(LAYERTAP_DONE) == 5);
  CHECK(sink.frames(LAYERTAP_HELLO) == 2);
  tapped.release();
}

void masks() {
  Memory sink;
  layertap::Probe<3> probe(kChain, kChainBytes, sink);
  static const uint8_t only_y[1] = {2};
  Ops ops;
  add(ops);
  layertap::TapResolver tapped(ops, probe);
  Runner runner(kChain, tapped, 0);
  CHECK(runner.ready());
  probe.select(only_y, 1);
  CHECK(runner.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_TENSOR) == 1);
  probe.select(2);
  probe.select(1, false);
  probe.select(0);
  probe.select(77);
  CHECK(runner.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_TENSOR) == 3);
  tapped.release();

  layertap::FixedProbe<3> fixed(kChain, kChainBytes, sink, only_y);
  layertap::TapResolver again(ops, fixed);
  Runner other(kChain, again, 1);
  CHECK(other.ready());
  CHECK(other.run() == kTfLiteOk);
  CHECK(sink.frames(LAYERTAP_TENSOR) == 4);
  again.release();
}

void accessors() {
  layertap::Accessor<float> z(0);
  layertap::Accessor<int8_t> of_other_type(0);
  layertap::Accessor<float> absent(1), negative(-1);
  Ops ops;
  add(ops);
  Runner runner(kChain, ops, 0);
  CHECK(runner.ready());
  CHECK(z.bind(runner.interpreter));
  CHECK(!of_other_type.bind(runner.interpreter));
  CHECK(!absent.bind(runner.interpreter) && !negative.bind(runner.interpreter));
  CHECK(runner.run() == kTfLiteOk);
  CHECK(z.index() == 0 && z.type() == kTfLiteFloat32 && z.count() == 8);
  CHECK(z.dims()->size == 2 && z.dims()->data[1] == 8 && z.data()[7] == 4);
  CHECK(z.scale() == 0 && z.dequantize(6) == 3);

  layertap::Accessor<int8_t> quantized(0);
  tflite::MicroMutableOpResolver<1> dense;
  dense.AddRelu();
  tflite::MicroInterpreter interpreter(tflite::GetModel(kQuantized), dense, arenas[1],
                                       sizeof arenas[1]);
  CHECK(interpreter.AllocateTensors() == kTfLiteOk);
  CHECK(quantized.bind(interpreter));
  interpreter.input(0)->data.int8[0] = 30;
  CHECK(interpreter.Invoke() == kTfLiteOk);
  CHECK(quantized.scale() == 0.5f && quantized.zero_point() == -4);
  CHECK(quantized.data()[0] == 30 && quantized.dequantize(0) == 17.0f);
}

struct Case {
  const char *name;
  void (*run)();
};

#define CASE(name) {#name, name}
const Case cases[] = {CASE(callbacks),
                      CASE(iterations),
                      CASE(arena_is_unchanged),
                      CASE(other_interpreters_are_left_alone),
                      CASE(two_probes),
                      CASE(one_tap_resolver_per_resolver),
                      CASE(released),
                      CASE(copies),
                      CASE(too_small),
                      CASE(another_model),
                      CASE(failing_kernel),
                      CASE(every_so_many),
                      CASE(masks),
                      CASE(accessors)};

}  // namespace

int main() {
#ifdef __arm__
  uart_start();
#endif
  for (const Case &test : cases) {
    failed = nullptr;
    test.run();
    if (failed == nullptr) {
      printf("ok %s\n", test.name);
    } else {
      printf("FAILED %s: line %d, %s\n", test.name, failed_line, failed);
    }
  }
  printf("end\n");
  fflush(stdout);
}
