#include "elements.h"

#include <string.h>

#include "layertap.h"

double load_element(uint32_t dtype, const void *data, uint32_t index) {
  const uint8_t *bytes = (const uint8_t *)data;
  if (dtype == LAYERTAP_INT4) {
    const int nibble = bytes[index / 2] >> (index % 2 * 4) & 15;
    return nibble < 8 ? nibble : nibble - 16;
  }
  return layertap_number((uint8_t)dtype, bytes + index * layertap_element_bytes((uint8_t)dtype));
}

static double clamp(double value, double low, double high) {
  if (layertap_is_nan(value)) return 0;
  return value < low ? low : value > high ? high : value;
}

static uint16_t half_bits(double value) {
  const float single = (float)value;
  uint32_t bits, sign;
  memcpy(&bits, &single, sizeof bits);
  sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits >= 0x7F800000) return (uint16_t)(sign | 0x7C00 | (bits > 0x7F800000 ? 0x200 : 0));
  if (bits >= 0x47800000) return (uint16_t)(sign | 0x7C00);
  if (bits < 0x38800000) {
    const double magnitude = value < 0 ? -value : value;
    return (uint16_t)(sign | (uint32_t)(magnitude * 16777216.0));
  }
  return (uint16_t)(sign | (bits - 0x38000000) >> 13);
}

static uint64_t integer_bits(uint32_t dtype, double value) {
  switch (dtype) {
    case LAYERTAP_INT8:
      return (uint64_t)(int64_t)clamp(value, -128, 127);
    case LAYERTAP_UINT8:
      return (uint64_t)clamp(value, 0, 255);
    case LAYERTAP_BOOL:
      return value != 0;
    case LAYERTAP_INT16:
      return (uint64_t)(int64_t)clamp(value, -32768, 32767);
    case LAYERTAP_UINT16:
      return (uint64_t)clamp(value, 0, 65535);
    case LAYERTAP_INT32:
      return (uint64_t)(int64_t)clamp(value, -2147483648.0, 2147483647.0);
    case LAYERTAP_UINT32:
      return (uint64_t)clamp(value, 0, 4294967295.0);
    case LAYERTAP_UINT64:
      return (uint64_t)clamp(value, 0, 9.2e18);
    default:
      return (uint64_t)(int64_t)clamp(value, -9.2e18, 9.2e18);
  }
}

static void store_nibble(uint8_t *bytes, uint32_t index, double value) {
  const uint32_t shift = index % 2 * 4;
  const uint32_t nibble = (uint32_t)(int32_t)clamp(value, -8, 7) & 15;
  bytes[index / 2] = (uint8_t)((bytes[index / 2] & (0xF0 >> shift)) | nibble << shift);
}

void store_element(uint32_t dtype, void *data, uint32_t index, double value) {
  const uint32_t size = layertap_element_bytes((uint8_t)dtype);
  uint8_t *place = (uint8_t *)data + index * size;
  const float single = (float)value;
  uint64_t bits = 0;
  switch (dtype) {
    case LAYERTAP_INT4:
      store_nibble((uint8_t *)data, index, value);
      return;
    case LAYERTAP_FLOAT32:
    case LAYERTAP_COMPLEX64:
      memcpy(&bits, &single, sizeof single);
      break;
    case LAYERTAP_BFLOAT16:
      memcpy(&bits, &single, sizeof single);
      bits >>= 16;
      break;
    case LAYERTAP_FLOAT64:
    case LAYERTAP_COMPLEX128:
      memcpy(&bits, &value, sizeof value);
      break;
    case LAYERTAP_FLOAT16:
      bits = half_bits(value);
      break;
    default:
      bits = integer_bits(dtype, value);
  }
  memset(place, 0, size);
  memcpy(place, &bits, size < sizeof bits ? size : sizeof bits);
}
