// @generated@
// The link to the host: the board's USB port or UART, whichever Serial is.
#include "wire_port.h"

#include <Arduino.h>

namespace wire_port {

void start() {
  Serial.begin(@baud@);
  // A board with USB of its own would lose what it writes before somebody listens.
  while (!Serial) {
  }
}

int read() { return Serial.read(); }

void write(const uint8_t *bytes, size_t count) {
  while (count > 0) {
    const size_t written = Serial.write(bytes, count);
    bytes += written;
    count -= written;
  }
}

}  // namespace wire_port
