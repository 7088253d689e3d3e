/* The board as a program of this machine; its UART is stdin and stdout. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "board.h"
#include "platform.h"

enum { IMAGE = 1 << 20, SECONDS = 300 };

int platform_read(uint8_t *byte, int wait) {
  static uint8_t bytes[4096];
  static ssize_t held, taken;
  struct pollfd in = {STDIN_FILENO, POLLIN, 0};
  if (taken == held) {
    if (!wait && poll(&in, 1, 0) <= 0) return 0;
    held = read(STDIN_FILENO, bytes, sizeof bytes);
    taken = 0;
    if (held <= 0) {
      held = 0;
      return -1;
    }
  }
  *byte = bytes[taken++];
  return 1;
}

void platform_write(const uint8_t *bytes, size_t count) {
  while (count) {
    const ssize_t sent = write(STDOUT_FILENO, bytes, count);
    if (sent <= 0) exit(1);
    bytes += sent;
    count -= (size_t)sent;
  }
}

void platform_pause(uint32_t milliseconds) {
  const struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
  nanosleep(&time, NULL);
}

void platform_leave(int code) {
  if (code) fprintf(stderr, "board: leaving with %d\n", code);
  exit(code);
}

int main(int count, char **arguments) {
  static _Alignas(16) uint8_t image[IMAGE];
  const int file = count == 2 ? open(arguments[1], O_RDONLY) : -1;
  const image_header *header = (const image_header *)image;
  const ssize_t got = file < 0 ? -1 : read(file, image, sizeof image);
  if (got < (ssize_t)sizeof *header || header->magic != IMAGE_MAGIC || header->bytes != (uint32_t)got) {
    fprintf(stderr, "usage: board IMAGE, as tests/firmware/testboard.py writes it\n");
    return 2;
  }
  alarm(SECONDS); /* no board outlives a test that forgot it */
  board_main(header);
  return 0;
}
