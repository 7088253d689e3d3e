// @generated@
// The link to the host: standard input and output of a process. For a board, write these three
// functions with its UART instead, in this file's place.
#include "wire_port.h"

#include <stdlib.h>
#include <unistd.h>

namespace wire_port {

void start() {}

int read() {
  uint8_t byte;
  if (::read(STDIN_FILENO, &byte, 1) == 1) return byte;
  exit(0);  // the host has gone
}

void write(const uint8_t *bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(STDOUT_FILENO, bytes, count);
    if (written <= 0) exit(1);
    bytes += written;
    count -= static_cast<size_t>(written);
  }
}

}  // namespace wire_port
