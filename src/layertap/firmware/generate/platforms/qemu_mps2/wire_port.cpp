// @generated@
// The link to the host: UART0 of the emulated board, which QEMU joins to its own standard input and
// output.
#include "wire_port.h"

#include "uart.h"

namespace wire_port {

void start() { uart_start(); }

int read() {
  uint8_t byte;
  return uart_read(&byte) ? byte : -1;
}

void write(const uint8_t *bytes, size_t count) { uart_write(bytes, count); }

}  // namespace wire_port
