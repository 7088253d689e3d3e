// @generated@
// Where the model's inputs come from.
#ifndef LAYERTAP_INPUTS_H_
#define LAYERTAP_INPUTS_H_

#include "tensorflow/lite/micro/micro_interpreter.h"

namespace inputs {

// Puts the next inputs into the interpreter. False while there are none.
bool next(tflite::MicroInterpreter &interpreter);

}  // namespace inputs

#endif  // LAYERTAP_INPUTS_H_
