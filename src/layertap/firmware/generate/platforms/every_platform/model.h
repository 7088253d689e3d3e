// @generated@
#ifndef LAYERTAP_MODEL_H_
#define LAYERTAP_MODEL_H_

#include <stddef.h>
#include <stdint.h>

#include "layertap.h"

@version_check@
@layout_check@
namespace model {

// The .tflite, byte for byte. Constant, so that it stays in flash.
extern const uint8_t kData[];

constexpr size_t kBytes = @model_bytes@;
constexpr uint32_t kCrc = @model_crc@;
constexpr char kName[] = @model_name@;

// @arena_origin@
constexpr size_t kArenaBytes = @arena_bytes@;

}  // namespace model

#endif  // LAYERTAP_MODEL_H_
