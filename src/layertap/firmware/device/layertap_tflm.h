/*
 * layertap_tflm.h: reads the tensors of a running TensorFlow Lite Micro model.
 *
 * C++17; no heap, no exceptions, no RTTI, no stdio. A Probe and a Sink in static memory are there
 * before any constructor runs; resolvers, here as in TensorFlow Lite Micro, are made at run time.
 * A firmware that exists already gets an include, a Probe and a TapResolver:
 *
 *   static Uart uart;                                       // a layertap::Sink: where bytes go
 *   static layertap::Probe<31> probe(g_model, sizeof g_model, uart, "person_detect");
 *   static layertap::TapResolver tapped(resolver, probe);   // resolver: MicroMutableOpResolver<N>
 *   tflite::MicroInterpreter interpreter(model, tapped, arena, sizeof arena);
 *
 * Invoke() stays as it was. A kernel's outputs are read at the moment it returns, when they surely
 * lie in the arena; neither the model nor the memory plan changes, and no byte of arena is used.
 *
 * Reentrancy. A Probe, its Sink and its Board belong to the task that calls Invoke(). Interpreters
 * of several tasks may run at the same time, each with a TapResolver and a Probe of its own, once
 * their AllocateTensors() have returned.
 *
 * Interrupts. Nothing here may be called from one. Board::receive runs the model; bytes that an
 * interrupt receives belong into a ring buffer, which the main loop empties into it.
 */
#ifndef LAYERTAP_TFLM_H_
#define LAYERTAP_TFLM_H_

#if __cplusplus < 201703L
#error "layertap_tflm.h needs C++17: compile with -std=gnu++17"
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "layertap.h"
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_context.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/micro_op_resolver.h"
#include "tensorflow/lite/portable_type_to_tflitetype.h"
#include "tensorflow/lite/schema/schema_generated.h"

/* Until September 2023 the graph was one concrete class without a header of its own. */
#if __has_include("tensorflow/lite/micro/micro_interpreter_graph.h")
#include "tensorflow/lite/micro/micro_interpreter_graph.h"
#define LAYERTAP_GRAPH tflite::MicroInterpreterGraph
#else
#include "tensorflow/lite/micro/micro_graph.h"
#define LAYERTAP_GRAPH tflite::MicroGraph
#endif

#if LAYERTAP_DEVICE_VERSION != 1
#error "layertap.h and layertap_tflm.h are of different versions: copy both from the same layertap"
#endif

/* Most bins of a histogram: words of stack while a reduction is sent. */
#ifndef LAYERTAP_BINS
#define LAYERTAP_BINS 64
#endif
#if LAYERTAP_BINS < 5
#error "LAYERTAP_BINS must be at least 5: a summary needs up to 20 bytes"
#endif

namespace layertap {

/* TFLMRegistration; TfLiteRegistration until May 2023. */
using Registration = std::remove_const_t<std::remove_pointer_t<
    decltype(std::declval<const tflite::MicroOpResolver &>().FindOp(""))>>;

using Kernel = decltype(Registration::invoke);

/* Stands around each kernel of a tapped interpreter. A function pointer rather than a virtual
 * function: it takes less code to call. */
class Observer {
 public:
  /* Must run kernel(context, node) and return what it returns. */
  using Around = TfLiteStatus (*)(TfLiteContext *context, TfLiteNode *node, Kernel kernel,
                                  Observer &self);

  constexpr explicit Observer(Around function) : around(function) {}
  const Around around;
};

namespace internal {

struct Lent {
  Registration *registration;
  Kernel kernel;
};

using Parser = decltype(std::declval<const tflite::MicroOpResolver &>().GetOpDataParser(
    tflite::BuiltinOperator_ADD));

/* Registrations whose invoke is `trampoline`, with their kernels; the last is followed by null. */
class Lender : public tflite::MicroOpResolver {
 public:
  Parser GetOpDataParser(tflite::BuiltinOperator op) const override {
    return inner_.GetOpDataParser(op);
  }

  /* Registrations become what they were: interpreters go on untapped. */
  void release() {
    for (const Lender **link = &all_; *link != nullptr; link = &(*link)->next_) {
      if (*link != this) continue;
      *link = next_;
      break;
    }
    for (Lent *lent = lent_; lent->registration != nullptr; ++lent) {
      lent->registration->invoke = lent->kernel;
      lent->registration = nullptr;
    }
  }

 protected:
  Lender(const tflite::MicroOpResolver &inner, Observer &observer, Lent *lent)
      : inner_(inner), observer_(observer), lent_(lent) {
    lent[0].registration = nullptr;
  }

  /* Not a method, since FindOp has its argument in the first place already. */
  static const Registration *lend(Registration *registration, const Lender &lender) {
    for (Lent *lent = lender.lent_; lent->registration != registration; ++lent) {
      if (lent->registration != nullptr) continue;
      /* Lent by another one, which owns it. */
      if (registration->invoke == trampoline) return nullptr;
      if (lent == lender.lent_) {
        lender.next_ = all_;
        all_ = &lender;
      }
      lent[0] = {registration, registration->invoke};
      lent[1].registration = nullptr;
      registration->invoke = trampoline;
      break;
    }
    return registration;
  }

  const tflite::MicroOpResolver &inner_;

  /* A deleting destructor would ask for a heap. */
  void operator delete(void *) {}

 private:
  static TfLiteStatus trampoline(TfLiteContext *context, TfLiteNode *node) {
    static_assert(offsetof(tflite::NodeAndRegistration, node) == 0,
                  "this TensorFlow Lite Micro keeps nodes in another way than layertap knows");
    const auto *registration =
        reinterpret_cast<const tflite::NodeAndRegistration *>(node)->registration;
    for (const Lender *lender = all_;; lender = lender->next_) {
      for (const Lent *lent = lender->lent_; lent->registration != nullptr; ++lent) {
        if (lent->registration != registration) continue;
        Observer &observer = lender->observer_;
        return observer.around(context, node, lent->kernel, observer);
      }
    }
  }

  static inline const Lender *all_ = nullptr;
  Observer &observer_;
  Lent *lent_;
  mutable const Lender *next_ = nullptr;
};

}  // namespace internal

/* Hands out the registrations of a MicroMutableOpResolver, with the observer around their kernels.
 *
 * It changes `invoke` in the registrations that the resolver keeps in RAM: that saves copies of
 * them. Interpreters that use the inner resolver directly come to the observer too; a Probe lets
 * those run untapped that are not its own. One TapResolver per inner resolver: for a second one
 * AllocateTensors() fails and no operator is found.
 *
 * Must live as long as the interpreters of both resolvers, or be released before. */
template <unsigned N>
class TapResolver final : public internal::Lender {
 public:
  TapResolver(tflite::MicroMutableOpResolver<N> &inner, Observer &observer)
      : Lender(inner, observer, lent_) {}

  TapResolver(const tflite::MicroOpResolver &inner, Observer &observer)
      : Lender(inner, observer, lent_) {
    static_assert(N == 0,
                  "layertap::TapResolver changes the resolver it is given: that must be a "
                  "MicroMutableOpResolver and not const. Else use layertap::CopyingTapResolver<N>.");
  }

  const Registration *FindOp(tflite::BuiltinOperator op) const override {
    return lend(const_cast<Registration *>(inner_.FindOp(op)), *this);
  }

  const Registration *FindOp(const char *op) const override {
    return lend(const_cast<Registration *>(inner_.FindOp(op)), *this);
  }

 private:
  internal::Lent lent_[N + 1];
};

template <unsigned N>
TapResolver(tflite::MicroMutableOpResolver<N> &, Observer &) -> TapResolver<N>;
TapResolver(const tflite::MicroOpResolver &, Observer &) -> TapResolver<1>;

/* The same around any resolver, of up to N types of operators: hands out copies. */
template <unsigned N>
class CopyingTapResolver final : public internal::Lender {
 public:
  CopyingTapResolver(const tflite::MicroOpResolver &inner, Observer &observer)
      : Lender(inner, observer, lent_) {}

  const Registration *FindOp(tflite::BuiltinOperator op) const override {
    return copy(inner_.FindOp(op));
  }

  const Registration *FindOp(const char *op) const override { return copy(inner_.FindOp(op)); }

 private:
  /* Null where there is no room: then AllocateTensors() fails for want of the operator. */
  const Registration *copy(const Registration *registration) const {
    for (unsigned i = 0; registration != nullptr && i < N; ++i) {
      Registration &copy = copies_[i];
      if (copy.invoke == nullptr) copy = *registration;
      if (copy.builtin_code == registration->builtin_code &&
          copy.custom_name == registration->custom_name) {
        return lend(&copy, *this);
      }
    }
    return nullptr;
  }

  mutable Registration copies_[N] = {};
  internal::Lent lent_[N + 1];
};

/* Where frames go. One Sink is one link: its frames are numbered here. */
class Sink {
 public:
  /* Writes all bytes, in order. May block; should not fail. */
  virtual void write(const uint8_t *bytes, size_t count) = 0;

  constexpr layertap_encoder *encoder() { return &encoder_; }

 protected:
  constexpr Sink() : encoder_{forward, this, 0, 0, {}} {}
  Sink(const Sink &) = delete;
  Sink &operator=(const Sink &) = delete;
  ~Sink() = default;

 private:
  static void forward(void *sink, const uint8_t *bytes, size_t count) {
    static_cast<Sink *>(sink)->write(bytes, count);
  }

  layertap_encoder encoder_;
};

/* A tensor at the moment it was made. What it points to is in the arena, until the callback ends. */
struct TensorView {
  uint32_t inference;
  int subgraph;
  int tensor;
  int iteration; /* how many times the subgraph was run before in this inference */
  TfLiteType type;
  const TfLiteIntArray *dims;
  const void *data;
  size_t bytes;

  /* The elements, or null if they are of another type than T. */
  template <class T>
  const T *as() const {
    return type == tflite::typeToTfLiteType<T>() ? static_cast<const T *>(data) : nullptr;
  }
};

/* Called in the middle of an inference: must not run, reset or destroy the interpreter. */
using Callback = void (*)(const TensorView &view, void *context);

namespace internal {

struct Subgraph {
  uint32_t first; /* bit of its tensor 0 */
  uint32_t runs;  /* in this inference */
};

struct Listener {
  uint32_t tap;
  Callback function;
  void *context;
};

/* An array that may be empty. */
template <class T, unsigned N>
struct Array {
  T items[N] = {};
};
template <class T>
struct Array<T, 0> {
  static constexpr T *items = nullptr;
};

/* What a Probe has room for. */
struct Room {
  uint8_t *mask; /* null when the mask is fixed */
  uint32_t tensors;
  Subgraph *subgraphs;
  uint32_t subgraph_count;
  layertap_rule *rules;
  uint32_t rule_count;
  Listener *listeners;
  uint32_t listener_count;
};

/* Where in a model a kernel runs. */
struct Place {
  Place(TfLiteContext *context, const TfLiteNode *node) {
    auto &graph = static_cast<LAYERTAP_GRAPH &>(tflite::GetMicroContext(context)->graph());
    subgraph = graph.GetCurrentSubgraphIndex();
    const tflite::SubgraphAllocations &allocations = graph.GetAllocations()[subgraph];
    tensors = allocations.tensors;
    op = static_cast<uint32_t>(reinterpret_cast<const tflite::NodeAndRegistration *>(node) -
                               allocations.node_and_registrations);
  }

  int subgraph;
  uint32_t op;
  const TfLiteEvalTensor *tensors;
};

inline uint32_t bytes_of(const TfLiteEvalTensor &tensor) {
  uint32_t count = 1;
  for (int i = 0; tensor.dims != nullptr && i < tensor.dims->size; ++i) {
    count *= static_cast<uint32_t>(tensor.dims->data[i]);
  }
  const uint8_t dtype = static_cast<uint8_t>(tensor.type);
  return dtype == LAYERTAP_INT4 ? (count + 1) / 2 : count * layertap_element_bytes(dtype);
}

class ProbeCore;

/* How a Probe speaks. It is reached through pointers, so that one without a Sink links no encoder. */
struct Wire {
  void (*hello)(ProbeCore &probe, uint8_t reason);
  void (*tensor)(ProbeCore &probe, uint32_t tap, const TensorView &view);
  void (*done)(ProbeCore &probe, TfLiteStatus status);
  void (*answer)(ProbeCore &probe, const layertap_command *command, uint8_t status,
                 const char *text);
};

template <bool kReduces>
struct WireOf;

/* All of a Probe that does not depend on its sizes. */
class ProbeCore : public Observer {
 public:
  static TfLiteStatus watch(TfLiteContext *context, TfLiteNode *node, Kernel kernel,
                            Observer &self) {
    return static_cast<ProbeCore &>(self).run(context, node, kernel);
  }

  TfLiteStatus run(TfLiteContext *context, TfLiteNode *node, Kernel kernel) {
    const Place place(context, node);
    if (place.subgraph == 0 && place.op == 0 && belongs(context, node)) begin();
    if (context != context_ || !open_) return kernel(context, node);
    if (place.op == 0) enter(place);
    TfLiteStatus status = kernel(context, node);
    if (status == kTfLiteOk && fresh_) status = call_again(context, place);
    if (status == kTfLiteOk && open_) leave(place, *node);
    if (status != kTfLiteOk || (place.subgraph == 0 && place.op + 1 == operators(0))) end(status);
    return status;
  }

  /* Calls function with each value of the tensor of this bit of the mask. False if there is no room
   * or no such tensor. Needs no Sink, and the mask does not matter to it. */
  bool on(uint32_t tap, Callback function, void *context = nullptr) {
    if (tap >= room_.tensors || listeners_ == room_.listener_count) return false;
    room_.listeners[listeners_++] = {tap, function, context};
    return true;
  }

  /* Tensors are sent every so many inferences, and always in those that a host asks for. */
  void every(uint32_t inferences) { every_ = inferences ? inferences : 1; }

  /* What HELLO says of the arena, bytes. A Board tells it by itself. */
  void arena(size_t bytes, size_t used) {
    arena_ = static_cast<uint32_t>(bytes);
    used_ = static_cast<uint32_t>(used);
  }

  /* The next inference to begin decides anew which interpreter is tapped. */
  void unbind() {
    context_ = nullptr;
    open_ = false;
  }

  /* Why nothing is tapped; null if all is well. */
  const char *trouble() {
    if (!measured_) measure();
    return trouble_;
  }

  uint32_t inference() const { return inference_; }
  uint32_t tensors() const { return tensors_ < room_.tensors ? tensors_ : room_.tensors; }
  const tflite::Model *model() const { return tflite::GetModel(bytes_); }

  /* For a Board. */
  void attach(uint32_t able, uint32_t receive) {
    able_ = able;
    receive_ = receive;
  }
  bool holds_rules() const { return room_.rule_count > 0; }
  bool has_fixed_mask() const { return room_.mask == nullptr; }
  void hello(uint8_t reason) {
    if (wire_ != nullptr) wire_->hello(*this, reason);
  }
  void answer(const layertap_command *command, uint8_t status, const char *text = nullptr) {
    if (wire_ != nullptr) wire_->answer(*this, command, status, text);
  }
  /* The number of the next inference, which the host waits for. */
  void expect(uint32_t inference) {
    next_ = inference;
    awaited_ = true;
  }
  /* Whether the host was told the end of it. */
  bool has_answered() const { return !awaited_; }
  void give_up() { awaited_ = false; }
  /* The interpreter was reset, and CALL_ONCE does not know it. */
  void start_afresh() { fresh_ = true; }
  uint8_t select(const layertap_command &command);
  uint8_t rule(const layertap_rule &rule);

 protected:
  constexpr ProbeCore(const void *model, size_t size, const char *name, const Wire *wire,
                      layertap_encoder *encoder, const uint8_t *mask, const Room &room)
      : Observer(watch),
        bytes_(model),
        size_(static_cast<uint32_t>(size)),
        name_(name),
        wire_(wire),
        encoder_(encoder),
        mask_(mask),
        room_(room) {}

 private:
  template <bool kReduces>
  friend struct WireOf;

  const tflite::SubGraph *subgraph(int index) const {
    return model()->subgraphs()->Get(static_cast<uint32_t>(index));
  }

  uint32_t operators(int index) const {
    const auto *all = subgraph(index)->operators();
    return all == nullptr ? 0 : all->size();
  }

  /* Whether the interpreter is the one that is tapped: the first that runs the Probe's own model,
   * known by its nodes, which point into the model's bytes. */
  bool belongs(const TfLiteContext *context, const TfLiteNode *node) {
    if (context_ != nullptr) return context == context_;
    const void *part = node->outputs != nullptr ? node->outputs : node->inputs;
    const uintptr_t distance =
        reinterpret_cast<uintptr_t>(part) - reinterpret_cast<uintptr_t>(bytes_);
    if (part != nullptr && distance >= size_) {
      complain(kForeign);
      return false;
    }
    context_ = context;
    if (trouble() != nullptr) complain(trouble_);
    return true;
  }

  /* Once, since a firmware may run other models on purpose. */
  void complain(const char *text) {
    if (complaint_ == text) return;
    complaint_ = text;
    answer(nullptr, text == kForeign ? LAYERTAP_FAILED : LAYERTAP_NO_ROOM, text);
  }

  void measure() {
    const auto *all = model()->subgraphs();
    measured_ = true;
    if (all->size() > room_.subgraph_count) trouble_ = kTooManySubgraphs;
    for (uint32_t i = 0; i < all->size(); ++i) {
      const auto *tensors = all->Get(i)->tensors();
      if (trouble_ == nullptr) room_.subgraphs[i].first = tensors_;
      tensors_ += tensors == nullptr ? 0 : tensors->size();
    }
    if (trouble_ == nullptr && tensors_ > room_.tensors) trouble_ = kTooManyTensors;
  }

  void begin() {
    if (trouble_ != nullptr) return;
    if (open_) end(kTfLiteError); /* it was left without a word, as by a longjmp */
    open_ = true;
    inference_ = next_++;
    sent_tensors_ = 0;
    sent_frames_ = 0;
    for (uint32_t i = 0; i < room_.subgraph_count; ++i) room_.subgraphs[i].runs = 0;
    if (!greeted_) {
      hello(LAYERTAP_STARTED);
    } else if (begun_ % 16 == 0 && !awaited_) {
      hello(LAYERTAP_REPEATED);
    }
    ++begun_;
  }

  void end(TfLiteStatus status) {
    if (!open_) return;
    open_ = false;
    const bool due = awaited_ || sent_frames_ > 0 || inference_ % every_ == 0;
    if (wire_ != nullptr && (due || status != kTfLiteOk)) wire_->done(*this, status);
    awaited_ = false;
    fresh_ = false;
  }

  /* Reset() empties resource variables, but CALL_ONCE does not set them up a second time: this does,
   * if the kernel has not. */
  TfLiteStatus call_again(TfLiteContext *context, const Place &place) {
    const auto *op = subgraph(place.subgraph)->operators()->Get(place.op);
    const auto *options = op->builtin_options_as_CallOnceOptions();
    if (options == nullptr) return kTfLiteOk;
    const int called = options->init_subgraph_index();
    if (room_.subgraphs[called].runs > 0) return kTfLiteOk;
    return tflite::GetMicroContext(context)->graph().InvokeSubgraph(called);
  }

  void enter(const Place &place) {
    const auto *inputs = subgraph(place.subgraph)->inputs();
    ++room_.subgraphs[place.subgraph].runs;
    for (uint32_t i = 0; inputs != nullptr && i < inputs->size(); ++i) {
      offer(place, inputs->Get(i));
    }
  }

  void leave(const Place &place, const TfLiteNode &node) {
    for (int i = 0; node.outputs != nullptr && i < node.outputs->size; ++i) {
      offer(place, node.outputs->data[i]);
    }
    for (int i = 0; node.inputs != nullptr && i < node.inputs->size; ++i) {
      const int tensor = node.inputs->data[i];
      if (tensor >= 0 && is_final_state(place, tensor)) offer(place, tensor);
    }
  }

  /* Whether this is a state and no later operator of the subgraph changes it again. */
  bool is_final_state(const Place &place, int tensor) const {
    const tflite::SubGraph *graph = subgraph(place.subgraph);
    if (!graph->tensors()->Get(static_cast<uint32_t>(tensor))->is_variable()) return false;
    for (uint32_t op = place.op + 1; op < graph->operators()->size(); ++op) {
      const auto *inputs = graph->operators()->Get(op)->inputs();
      for (uint32_t i = 0; inputs != nullptr && i < inputs->size(); ++i) {
        if (inputs->Get(i) == tensor) return false;
      }
    }
    return true;
  }

  void offer(const Place &place, int index) {
    static constexpr int32_t kScalar = 0; /* a TfLiteIntArray of size 0 */
    if (index < 0) return;
    const Subgraph &subgraph = room_.subgraphs[place.subgraph];
    const uint32_t tap = subgraph.first + static_cast<uint32_t>(index);
    const TfLiteEvalTensor &tensor = place.tensors[index];
    const TfLiteIntArray *dims =
        tensor.dims != nullptr ? tensor.dims : reinterpret_cast<const TfLiteIntArray *>(&kScalar);
    const TensorView view = {inference_,
                             place.subgraph,
                             index,
                             static_cast<int>(subgraph.runs - 1),
                             tensor.type,
                             dims,
                             tensor.data.raw_const,
                             bytes_of(tensor)};
    if (view.data == nullptr) return;
    for (uint32_t i = 0; i < listeners_; ++i) {
      const Listener &listener = room_.listeners[i];
      if (listener.tap == tap) listener.function(view, listener.context);
    }
    if (wire_ != nullptr && layertap_in_mask(mask_, tap)) wire_->tensor(*this, tap, view);
  }

  const layertap_rule *rule_of(uint32_t tap) const {
    for (uint32_t i = 0; i < rules_; ++i) {
      if (room_.rules[i].tap == tap + 1) return &room_.rules[i];
    }
    return nullptr;
  }

  static constexpr const char *kForeign = "an interpreter runs another model than the Probe has";
  static constexpr const char *kTooManyTensors =
      "the model has more tensors than the Probe has room for: Probe<tensors, subgraphs>";
  static constexpr const char *kTooManySubgraphs =
      "the model has more subgraphs than the Probe has room for: Probe<tensors, subgraphs>";

  const void *bytes_; /* not of another type: a cast would not be a constant expression */
  uint32_t size_;
  const char *name_;
  const Wire *wire_;
  layertap_encoder *encoder_;
  const uint8_t *mask_;
  const Room room_;
  const TfLiteContext *context_ = nullptr;
  const char *trouble_ = nullptr;
  const char *complaint_ = nullptr;
  uint32_t tensors_ = 0;
  uint32_t rules_ = 0;
  uint32_t listeners_ = 0;
  uint32_t crc_ = 0;
  uint32_t able_ = 0;
  uint32_t receive_ = 0;
  uint32_t arena_ = 0;
  uint32_t used_ = 0;
  uint32_t every_ = 1;
  uint32_t next_ = 0;
  uint32_t inference_ = 0;
  uint32_t begun_ = 0;
  uint32_t sent_tensors_ = 0;
  uint32_t sent_frames_ = 0;
  bool measured_ = false;
  bool summed_ = false;
  bool greeted_ = false;
  bool open_ = false;
  bool awaited_ = false;
  bool fresh_ = false;
};


template <bool kReduces>
struct WireOf {
  static void hello(ProbeCore &probe, uint8_t reason) {
    if (reason == LAYERTAP_STARTED && probe.greeted_) reason = LAYERTAP_REPEATED;
    probe.greeted_ = true;
    if (!probe.summed_) probe.crc_ = LAYERTAP_CRC32(0, probe.bytes_, probe.size_);
    probe.summed_ = true;
    const char *trouble = probe.trouble();
    layertap_hello hello = {};
    hello.reason = reason;
    hello.able = probe.able_;
    hello.receive = probe.receive_;
    hello.rules = probe.room_.rule_count;
    hello.model = probe.crc_;
    hello.size = probe.size_;
    hello.tensors = probe.tensors();
    hello.arena = probe.arena_;
    hello.used = probe.used_;
    hello.every = probe.every_;
    hello.name = probe.name_;
    hello.mask = probe.mask_;
    layertap_send_hello(probe.encoder_, &hello);
    if (trouble != nullptr) answer(probe, nullptr, LAYERTAP_NO_ROOM, trouble);
  }

  static void tensor(ProbeCore &probe, uint32_t tap, const TensorView &view) {
    layertap_tensor tensor = {};
    tensor.inference = view.inference;
    tensor.subgraph = static_cast<uint32_t>(view.subgraph);
    tensor.tensor = static_cast<uint32_t>(view.tensor);
    tensor.iteration = static_cast<uint32_t>(view.iteration);
    tensor.dtype = static_cast<uint8_t>(view.type);
    tensor.rank = static_cast<uint8_t>(view.dims->size);
    tensor.dims = view.dims->data;
    tensor.data = view.data;
    tensor.bytes = static_cast<uint32_t>(view.bytes);
    const layertap_rule *rule = kReduces ? probe.rule_of(tap) : nullptr;
    const uint32_t every = rule != nullptr ? rule->every : probe.every_;
    if (!probe.awaited_ && view.inference % every != 0) return;
    if constexpr (kReduces) {
      if (rule != nullptr) return reduced(probe, *rule, tensor);
    }
    send(probe, tensor);
  }

  static void reduced(ProbeCore &probe, const layertap_rule &rule, layertap_tensor &tensor) {
    uint32_t room[LAYERTAP_BINS];
    const uint8_t status = layertap_reduce(&rule, &tensor, room, LAYERTAP_BINS);
    if (status == LAYERTAP_OK) {
      send(probe, tensor);
    } else {
      answer(probe, nullptr, status, "a rule does not fit the shape or type of its tensor");
    }
  }

  static void send(ProbeCore &probe, const layertap_tensor &tensor) {
    const uint32_t frames = layertap_send_tensor(probe.encoder_, &tensor);
    probe.sent_frames_ += frames;
    probe.sent_tensors_ += frames > 0;
  }

  static void done(ProbeCore &probe, TfLiteStatus status) {
    layertap_send_done(probe.encoder_, probe.inference_, static_cast<uint8_t>(status),
                       probe.sent_tensors_, probe.sent_frames_);
  }

  static void answer(ProbeCore &probe, const layertap_command *command, uint8_t status,
                     const char *text) {
    if (!probe.greeted_) hello(probe, LAYERTAP_STARTED);
    const uint8_t type = command == nullptr ? 0 : command->type;
    const uint8_t of = command == nullptr ? 0 : command->sequence;
    layertap_send_answer(probe.encoder_, type, of, status, text);
  }

  static constexpr Wire wire = {hello, tensor, done, answer};
};

inline uint8_t ProbeCore::select(const layertap_command &command) {
  if (trouble() != nullptr) return LAYERTAP_NO_ROOM;
  if (room_.mask == nullptr) return LAYERTAP_CANNOT;
  const uint8_t status = layertap_set_mask(room_.mask, (room_.tensors + 7) / 8, &command);
  if (status == LAYERTAP_OK) every_ = command.select.every;
  return status;
}

inline uint8_t ProbeCore::rule(const layertap_rule &rule) {
  if (room_.rule_count == 0) return LAYERTAP_CANNOT;
  if (rule.tap == 0) {
    rules_ = 0;
    return LAYERTAP_OK;
  }
  if (trouble() != nullptr) return LAYERTAP_NO_ROOM;
  if (rule.tap > tensors_ || rule.every == 0) return LAYERTAP_OUT_OF_RANGE;
  if (rule.form > LAYERTAP_HISTOGRAM) return LAYERTAP_CANNOT;
  if (rule.form == LAYERTAP_HISTOGRAM && rule.a > LAYERTAP_BINS) return LAYERTAP_NO_ROOM;
  uint32_t at = 0;
  while (at < rules_ && room_.rules[at].tap != rule.tap) ++at;
  if (at == room_.rule_count) return LAYERTAP_NO_ROOM;
  room_.rules[at] = rule;
  if (at == rules_) ++rules_;
  return LAYERTAP_OK;
}

template <unsigned kTensors, unsigned kSubgraphs, unsigned kRules, unsigned kCallbacks>
struct Arrays {
  Array<uint8_t, (kTensors + 7) / 8> mask;
  Array<Subgraph, kSubgraphs> subgraphs;
  Array<layertap_rule, kRules> rules;
  Array<Listener, kCallbacks> listeners;
};

}  // namespace internal

/* Watches one model: calls back and sends what the mask selects.
 *
 * kTensors and kSubgraphs: of all subgraphs, at least as many as the model has; kRules: slices,
 * summaries and histograms that the host may ask for; kCallbacks: how often `on` may be called.
 * Where they do not fit the model, the host and trouble() are told so and nothing is tapped. */
template <unsigned kTensors, unsigned kSubgraphs = 1, unsigned kRules = 0, unsigned kCallbacks = 0>
class Probe final : private internal::Arrays<kTensors, kSubgraphs, kRules, kCallbacks>,
                    public internal::ProbeCore {
  using Arrays = internal::Arrays<kTensors, kSubgraphs, kRules, kCallbacks>;
  static_assert(kTensors > 0 && kSubgraphs > 0, "a model has tensors and at least one subgraph");

 public:
  /* The .tflite at `model`, of `size` bytes, that the interpreter runs. Nothing is sent. */
  constexpr Probe(const void *model, size_t size) : Probe(model, size, "", nullptr, nullptr) {}

  /* Frames go to `sink`, of all tensors until `select` or the host says otherwise. `name` is what
   * the host calls the model: UTF-8, up to 63 bytes. */
  constexpr Probe(const void *model, size_t size, Sink &sink, const char *name = "")
      : Probe(model, size, name, &internal::WireOf<(kRules > 0)>::wire, sink.encoder()) {}

  /* Which tensors are sent: bit 0 of byte 0 is tensor 0 of subgraph 0. Bytes that lack are 0. */
  void select(const uint8_t *bits, size_t bytes) {
    for (size_t i = 0; i < sizeof this->mask.items; ++i) {
      this->mask.items[i] = i < bytes ? bits[i] : 0;
    }
  }

  /* Whether the tensor of this bit is sent. */
  void select(uint32_t tap, bool sent = true) {
    if (tap >= kTensors) return;
    const uint8_t bit = static_cast<uint8_t>(1u << tap % 8);
    uint8_t &byte = this->mask.items[tap / 8];
    byte = static_cast<uint8_t>(sent ? byte | bit : byte & ~bit);
  }

  using ProbeCore::select;

  bool on(uint32_t tap, Callback function, void *context = nullptr) {
    static_assert(kCallbacks > 0,
                  "say how many callbacks: layertap::Probe<tensors, subgraphs, rules, callbacks>");
    return ProbeCore::on(tap, function, context);
  }

 private:
  constexpr Probe(const void *model, size_t size, const char *name, const internal::Wire *wire,
                  layertap_encoder *encoder)
      : Arrays(),
        ProbeCore(model, size, name, wire, encoder, this->mask.items,
                  {this->mask.items, kTensors, this->subgraphs.items, kSubgraphs,
                   this->rules.items, kRules, this->listeners.items, kCallbacks}) {
    for (uint8_t &byte : this->mask.items) byte = 0xFF;
  }
};

/* A Probe whose mask is fixed and stays in flash: (kTensors + 7) / 8 bytes. */
template <unsigned kTensors, unsigned kSubgraphs = 1, unsigned kRules = 0, unsigned kCallbacks = 0>
class FixedProbe final : private internal::Arrays<0, kSubgraphs, kRules, kCallbacks>,
                         public internal::ProbeCore {
  using Arrays = internal::Arrays<0, kSubgraphs, kRules, kCallbacks>;
  static_assert(kTensors > 0 && kSubgraphs > 0, "a model has tensors and at least one subgraph");

 public:
  constexpr FixedProbe(const void *model, size_t size, Sink &sink,
                       const uint8_t (&bits)[(kTensors + 7) / 8], const char *name = "")
      : Arrays(),
        ProbeCore(model, size, name, &internal::WireOf<(kRules > 0)>::wire, sink.encoder(), bits,
                  {nullptr, kTensors, this->subgraphs.items, kSubgraphs, this->rules.items, kRules,
                   this->listeners.items, kCallbacks}) {}
};

/* Obeys a host: sets inputs, runs the model, selects tensors.
 *
 * Make it when AllocateTensors() has returned; it tells the host that the board is up. kReceive:
 * bytes of the largest command, of which a longer input is put together. */
template <class P, unsigned kReceive = 512>
class Board {
  static_assert(kReceive >= 64, "a RULE takes up to 35 bytes, and an INPUT should hold some data");

 public:
  /* arena: its bytes, for the host to know; 0 says nothing. */
  Board(P &probe, tflite::MicroInterpreter &interpreter, size_t arena = 0)
      : probe_(probe), interpreter_(interpreter), receiver_{buffer_, kReceive, 0, 0, 0, 0} {
    uint32_t able = LAYERTAP_RUNS;
    if (!probe.has_fixed_mask()) able |= LAYERTAP_SELECTS;
    if (probe.holds_rules()) able |= LAYERTAP_RULES;
    probe.attach(able, kReceive);
    probe.arena(arena, interpreter.arena_used_bytes());
    probe.hello(LAYERTAP_STARTED);
  }
  Board(const Board &) = delete;
  Board &operator=(const Board &) = delete;

  /* A byte from the host. Runs the model when it completes such a command. True if it completed
   * any: what waits for commands may look at other work then. */
  bool receive(uint8_t byte) {
    layertap_command command;
    if (!layertap_receive(&receiver_, byte, &command)) return false;
    obey(command);
    return true;
  }

 private:
  void obey(const layertap_command &command) {
    switch (command.type) {
      case LAYERTAP_ASK:
        return probe_.hello(LAYERTAP_ASKED);
      case LAYERTAP_SELECT:
        return probe_.answer(&command, probe_.ProbeCore::select(command), probe_.trouble());
      case LAYERTAP_RULE:
        return probe_.answer(&command, probe_.rule(command.rule));
      case LAYERTAP_INPUT:
        if (!put(command)) probe_.answer(&command, LAYERTAP_OUT_OF_RANGE, "no such input bytes");
        return;
      case LAYERTAP_RUN:
        return run(command);
      default:
        return probe_.answer(&command, LAYERTAP_CANNOT, "unknown command");
    }
  }

  bool put(const layertap_command &command) {
    const auto &input = command.input;
    if (input.input >= interpreter_.inputs_size()) return false;
    TfLiteTensor *tensor = interpreter_.input(input.input);
    if (tensor == nullptr || tensor->data.raw == nullptr) return false;
    if (input.offset > tensor->bytes || input.count > tensor->bytes - input.offset) return false;
    if (input.count > 0) memcpy(tensor->data.raw + input.offset, input.data, input.count);
    return true;
  }

  uint32_t sum_of_inputs() {
    uint32_t crc = 0;
    for (size_t i = 0; i < interpreter_.inputs_size(); ++i) {
      const TfLiteTensor *tensor = interpreter_.input(i);
      if (tensor != nullptr) crc = LAYERTAP_CRC32(crc, tensor->data.raw, tensor->bytes);
    }
    return crc;
  }

  void run(const layertap_command &command) {
    if (probe_.trouble() != nullptr) {
      return probe_.answer(&command, LAYERTAP_NO_ROOM, probe_.trouble());
    }
    if (sum_of_inputs() != command.run.check) return probe_.answer(&command, LAYERTAP_INCOMPLETE);
    if ((command.run.flags & LAYERTAP_RESET_STATE) != 0) {
      if (interpreter_.Reset() != kTfLiteOk) {
        return probe_.answer(&command, LAYERTAP_FAILED, "the interpreter's Reset() failed");
      }
      probe_.start_afresh();
    }
    probe_.expect(command.run.inference);
    interpreter_.Invoke(); /* what it returns the Probe has seen */
    if (probe_.has_answered()) return;
    probe_.give_up();
    probe_.answer(&command, LAYERTAP_FAILED,
                  "no tapped operator ran: is the TapResolver the interpreter's, and its model and "
                  "the interpreter those of the Probe?");
  }

  P &probe_;
  tflite::MicroInterpreter &interpreter_;
  uint8_t buffer_[kReceive];
  layertap_receiver receiver_;
};

/* An output of a model, by position, for firmware that reads taps which were made outputs. Stands
 * alone: no TapResolver, no Probe. T: the type of its elements, as int8_t or float. */
template <class T>
class Accessor {
 public:
  constexpr explicit Accessor(int index) : index_(index) {}

  /* When AllocateTensors() has returned. False if there is no such output or it is not of T. */
  bool bind(tflite::MicroInterpreter &interpreter) {
    tensor_ = nullptr;
    if (index_ < 0 || static_cast<size_t>(index_) >= interpreter.outputs_size()) return false;
    const TfLiteTensor *tensor = interpreter.output(static_cast<size_t>(index_));
    if (tensor == nullptr || tensor->type != type()) return false;
    tensor_ = tensor;
    return true;
  }

  constexpr int index() const { return index_; }
  static constexpr TfLiteType type() { return tflite::typeToTfLiteType<T>(); }

  /* The following are for bound ones. The elements change with each Invoke(). */
  const TfLiteIntArray *dims() const { return tensor_->dims; }
  const T *data() const { return static_cast<const T *>(tensor_->data.data); }
  size_t count() const { return tensor_->bytes / sizeof(T); }
  /* 0 where the tensor is not quantized. */
  float scale() const { return tensor_->params.scale; }
  int32_t zero_point() const { return tensor_->params.zero_point; }

  /* The real number that element i stands for. */
  float dequantize(size_t i) const {
    const T value = data()[i];
    if (scale() == 0.0f) return static_cast<float>(value);
    return scale() * static_cast<float>(static_cast<int32_t>(value) - zero_point());
  }

 private:
  int index_;
  const TfLiteTensor *tensor_ = nullptr;
};

}  // namespace layertap

#endif
