// @generated@
#ifndef LAYERTAP_OPS_H_
#define LAYERTAP_OPS_H_

@custom_include@#include "model.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

@version_check@
@custom_declarations@
namespace model {

using Resolver = tflite::MicroMutableOpResolver<@operator_count@>;

// Registers the operators of the model and no other.
inline TfLiteStatus add_operators(Resolver &resolver) {
@add_operators@  return kTfLiteOk;
}

}  // namespace model

#endif  // LAYERTAP_OPS_H_
