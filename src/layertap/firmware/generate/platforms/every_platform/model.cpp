// @generated@
#include "model.h"

namespace model {

alignas(16) const uint8_t kData[] = {
@model_array@
};

static_assert(sizeof(kData) == kBytes, "@again@");

}  // namespace model
