// @generated@
#ifndef LAYERTAP_ACCESSORS_H_
#define LAYERTAP_ACCESSORS_H_

#include "layertap_tflm.h"
#include "model.h"

@version_check@

namespace model {

// Tensors inside the model, which this copy of it hands out as further outputs.
struct Taps {
@accessor_members@
  // When AllocateTensors() has returned, and once more after each Reset().
  bool bind(tflite::MicroInterpreter &interpreter) {
    return @accessor_binds@;
  }
};

}  // namespace model

#endif  // LAYERTAP_ACCESSORS_H_
