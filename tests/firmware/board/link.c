#include "link.h"

#include <string.h>

#include "platform.h"

enum { BUFFER = 4096, LONGEST = 80000 };

static const image_header *image;
static void (*start_anew)(void);
static uint32_t frame;    /* number of the frame that is being sent, from power-on */
static uint32_t position; /* of the next byte in it */
static uint32_t received;
static int hanging;
static uint8_t waiting[BUFFER]; /* for the platform */
static size_t waiting_bytes;
static uint8_t held[LONGEST]; /* the frame that is to be overtaken */
static size_t held_bytes;
static uint32_t overtaken;

void link_open(const image_header *header, void (*restart)(void)) {
  image = header;
  start_anew = restart;
}

static int due(const fault_order *fault, uint32_t number) {
  if (number == fault->frame) return 1;
  return fault->every && number > fault->frame && (number - fault->frame) % fault->every == 0;
}

const fault_order *link_fault(uint32_t kind, uint32_t number) {
  for (int i = 0; i < FAULTS; ++i)
    if (image->faults[i].kind == kind && due(&image->faults[i], number)) return &image->faults[i];
  return NULL;
}

static int ordered(uint32_t kind) {
  for (int i = 0; i < FAULTS; ++i)
    if (image->faults[i].kind == kind) return 1;
  return 0;
}

static int at_byte(uint32_t kind) {
  for (int i = 0; i < FAULTS; ++i) {
    const fault_order *fault = &image->faults[i];
    if (fault->kind == kind && fault->byte == position && due(fault, frame)) return 1;
  }
  return 0;
}

static void flush(void) {
  if (waiting_bytes) platform_write(waiting, waiting_bytes);
  waiting_bytes = 0;
}

static void push(uint8_t byte) {
  if (hanging) return;
  if (waiting_bytes + 2 > BUFFER) flush();
  if (byte == '\n' && ordered(CRLF)) waiting[waiting_bytes++] = '\r';
  waiting[waiting_bytes++] = byte;
}

void link_text(const char *text) {
  while (*text) push((uint8_t)*text++);
  flush();
}

void link_started(void) {
  uint32_t random = 12345;
  for (int i = 0; i < FAULTS; ++i)
    for (uint32_t k = 0; image->faults[i].kind == GARBAGE && k < image->faults[i].byte; ++k) {
      random = random * 1664525u + 1013904223u;
      push((uint8_t)(random >> 24));
    }
}

static void begin_frame(void) {
  /* A board that was reset in the middle of the frame goes on with the next number. */
  if (link_fault(SWAP, frame)) {
    overtaken = frame;
    held_bytes = 0;
  }
}

static void end_frame(void) {
  if (held_bytes && frame == overtaken + 1) {
    for (size_t i = 0; i < held_bytes; ++i) push(held[i]);
    held_bytes = 0;
  }
  ++frame;
  position = 0;
  flush();
}

static void frame_byte(uint8_t byte) {
  if (position == 0) begin_frame();
  if (link_fault(HANG, frame)) hanging = 1;
  if (at_byte(LEAVE)) {
    flush();
    platform_leave(3);
  }
  if (at_byte(RESET)) {
    flush();
    ++frame;
    position = 0;
    start_anew();
  }
  if (at_byte(TEXT)) link_text("tick\n");
  if (at_byte(FLIP_BIT)) byte ^= 0x10;
  if (link_fault(SWAP, frame) && held_bytes < LONGEST)
    held[held_bytes++] = byte;
  else if (!at_byte(DROP_BYTE) && !link_fault(DROP_FRAME, frame))
    push(byte);
}

void link_write(void *sink, const uint8_t *bytes, size_t count) {
  (void)sink;
  while (count--) {
    const int last = *bytes == 0 && position > 1;
    frame_byte(*bytes++);
    ++position;
    if (last) end_frame();
  }
}

int link_read(uint8_t *byte, int wait) {
  int got;
  flush();
  got = platform_read(byte, wait);
  if (got == 1) {
    const uint32_t number = received++;
    for (int i = 0; i < FAULTS; ++i) {
      const fault_order *fault = &image->faults[i];
      const uint32_t after = number - fault->byte;
      if (fault->kind != DEAF || number < fault->byte) continue;
      if (after == 0 || (fault->every && after % fault->every == 0)) return link_read(byte, wait);
    }
  }
  return got;
}
