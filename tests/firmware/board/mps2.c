/* The board on an emulated mps2-an385; the image has been loaded into its PSRAM. */
#include "board.h"
#include "platform.h"
#include "uart.h"

static const image_header *const image = (const image_header *)0x21000000;

int platform_read(uint8_t *byte, int wait) {
  do {
    if (uart_read(byte)) return 1;
  } while (wait);
  return 0;
}

void platform_write(const uint8_t *bytes, size_t count) { uart_write(bytes, count); }

/* About right on an emulator, which counts no cycles. */
void platform_pause(uint32_t milliseconds) {
  for (volatile uint32_t n = milliseconds * 20000; n; --n) {
  }
}

void platform_leave(int code) {
  (void)code;
  for (;;) {
  }
}

int main(void) {
  uart_start();
  if (image->magic == IMAGE_MAGIC) board_main(image);
  return 0;
}
