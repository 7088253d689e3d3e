// The part of TensorFlow Lite Micro's interface that layertap_tflm.h uses, declared anew and as
// small as it goes, for compilers where there is no TensorFlow Lite Micro. Nothing here runs.
#ifndef OUTLINE_H_
#define OUTLINE_H_

#include <cstddef>
#include <cstdint>

enum TfLiteStatus { kTfLiteOk, kTfLiteError };
enum TfLiteType {
  kTfLiteNoType,
  kTfLiteFloat32,
  kTfLiteUInt8 = 3,
  kTfLiteInt8 = 9,
  kTfLiteBFloat16 = 19
};

struct TfLiteIntArray {
  int size;
  int data[1];
};

union TfLitePtrUnion {
  void *data;
  char *raw;
  const char *raw_const;
  uint8_t *uint8;
};

struct TfLiteEvalTensor {
  TfLitePtrUnion data;
  TfLiteIntArray *dims;
  TfLiteType type;
};

struct TfLiteTensor {
  TfLiteType type;
  TfLitePtrUnion data;
  TfLiteIntArray *dims;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  size_t bytes;
};

struct TfLiteNode {
  TfLiteIntArray *inputs, *outputs, *intermediates;
  void *user_data, *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
};

struct TfLiteContext {
  void *impl;
};

struct TFLMRegistration {
  void *(*init)(TfLiteContext *, const char *, size_t);
  void (*free)(TfLiteContext *, void *);
  TfLiteStatus (*prepare)(TfLiteContext *, TfLiteNode *);
  TfLiteStatus (*invoke)(TfLiteContext *, TfLiteNode *);
  void (*reset)(TfLiteContext *, void *);
  int32_t builtin_code;
  const char *custom_name;
};

namespace tflite {

enum BuiltinOperator { BuiltinOperator_ADD };

template <class T>
struct Vector {
  uint32_t size() const;
  T Get(uint32_t index) const;
};

struct CallOnceOptions {
  int32_t init_subgraph_index() const;
};

struct Operator {
  const Vector<int32_t> *inputs() const;
  const CallOnceOptions *builtin_options_as_CallOnceOptions() const;
};

struct Tensor {
  bool is_variable() const;
};

struct SubGraph {
  const Vector<const Tensor *> *tensors() const;
  const Vector<int32_t> *inputs() const;
  const Vector<const Operator *> *operators() const;
};

struct Model {
  const Vector<const SubGraph *> *subgraphs() const;
};

const Model *GetModel(const void *bytes);

template <class T>
constexpr TfLiteType typeToTfLiteType() {
  return kTfLiteNoType;
}
template <>
constexpr TfLiteType typeToTfLiteType<float>() {
  return kTfLiteFloat32;
}
template <>
constexpr TfLiteType typeToTfLiteType<uint8_t>() {
  return kTfLiteUInt8;
}
template <>
constexpr TfLiteType typeToTfLiteType<int8_t>() {
  return kTfLiteInt8;
}

struct NodeAndRegistration {
  TfLiteNode node;
  const TFLMRegistration *registration;
};

struct SubgraphAllocations {
  NodeAndRegistration *node_and_registrations;
  TfLiteEvalTensor *tensors;
};

struct MicroGraph {
  virtual ~MicroGraph() = default;
  virtual TfLiteStatus InvokeSubgraph(int subgraph) = 0;
};

struct MicroInterpreterGraph : MicroGraph {
  TfLiteStatus InvokeSubgraph(int subgraph) override;
  int GetCurrentSubgraphIndex();
  SubgraphAllocations *GetAllocations();
};

struct MicroContext {
  MicroGraph &graph();
};

MicroContext *GetMicroContext(const TfLiteContext *context);

using Parse = TfLiteStatus (*)(const Operator *, void *, void *, void **);

struct MicroOpResolver {
  virtual const TFLMRegistration *FindOp(BuiltinOperator op) const = 0;
  virtual const TFLMRegistration *FindOp(const char *op) const = 0;
  virtual Parse GetOpDataParser(BuiltinOperator op) const = 0;
  virtual ~MicroOpResolver() {}
};

template <unsigned kTypes>
struct MicroMutableOpResolver : MicroOpResolver {
  MicroMutableOpResolver();
  const TFLMRegistration *FindOp(BuiltinOperator op) const override;
  const TFLMRegistration *FindOp(const char *op) const override;
  Parse GetOpDataParser(BuiltinOperator op) const override;
  TfLiteStatus AddConv2D();
  TfLiteStatus AddSoftmax();
  TFLMRegistration registrations[kTypes];
};

struct MicroInterpreter {
  MicroInterpreter(const Model *, const MicroOpResolver &, uint8_t *arena, size_t bytes);
  ~MicroInterpreter();
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteStatus Reset();
  size_t inputs_size() const;
  size_t outputs_size() const;
  TfLiteTensor *input(size_t index);
  TfLiteTensor *output(size_t index);
  size_t arena_used_bytes() const;
};

}  // namespace tflite

#endif
