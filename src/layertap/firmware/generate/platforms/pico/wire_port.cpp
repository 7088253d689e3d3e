// @generated@
// The link to the host: whatever the Pico SDK's stdio is; CMakeLists.txt says USB.
#include "wire_port.h"

#include "pico/stdio.h"
#include "pico/stdlib.h"
#if LIB_PICO_STDIO_USB
#include "pico/stdio_usb.h"
#endif
#if LIB_PICO_STDIO_UART
#include "pico/stdio_uart.h"
#endif

namespace wire_port {

void start() {
  stdio_init_all();
  // A \n in a tensor is no new line.
#if LIB_PICO_STDIO_UART
  stdio_set_translate_crlf(&stdio_uart, false);
#endif
#if LIB_PICO_STDIO_USB
  stdio_set_translate_crlf(&stdio_usb, false);
  while (!stdio_usb_connected()) sleep_ms(10);
#endif
}

int read() {
  const int byte = stdio_getchar_timeout_us(0);
  return byte < 0 ? -1 : byte;
}

void write(const uint8_t *bytes, size_t count) {
  stdio_put_string(reinterpret_cast<const char *>(bytes), static_cast<int>(count), false, false);
}

}  // namespace wire_port
