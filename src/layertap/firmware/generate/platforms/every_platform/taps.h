// @generated@
#ifndef LAYERTAP_TAPS_H_
#define LAYERTAP_TAPS_H_

#include <stdint.h>

#include "model.h"

@version_check@

static_assert(model::kCrc == @model_crc@, "taps.h belongs to another model than model.h: @again@");

namespace model {

constexpr unsigned kTensors = @tensors@;
constexpr unsigned kSubgraphs = @subgraphs@;
constexpr unsigned kRules = @rules@;  // slices, reductions and rates that the host can set

// What can be read: bits of the mask.
enum Tap : unsigned {
@tap_enum@};

// What is sent@when_sent@: @chosen@.
constexpr uint8_t kMask[] = {@mask@};

}  // namespace model

#endif  // LAYERTAP_TAPS_H_
