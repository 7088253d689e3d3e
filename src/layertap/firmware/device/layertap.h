/*
 * layertap.h: what a board says to layertap on a host, and what it is told.
 *
 * The format is docs/wire-format.md, version 1. C99, and C++17 or later; no dependency beyond the
 * three headers below; no heap, no stdio, nothing static that changes.
 *
 *   static void put(void *sink, const uint8_t *bytes, size_t count) { uart_write(bytes, count); }
 *   static layertap_encoder encoder = {.write = put};
 *   ...
 *   layertap_send_hello(&encoder, &hello);    once after a reset
 *   layertap_send_tensor(&encoder, &tensor);  while its bytes are what you want to see
 *   layertap_send_done(&encoder, inference, 0, tensors, frames);
 *
 * Buffers. No tensor is copied: a frame is checked, stuffed and written from where the tensor lies.
 * A tensor whose bytes change meanwhile makes a damaged frame, which the host drops and counts.
 * Sending takes about 250 bytes of stack on a Cortex-M, besides what your write takes.
 *
 * Reentrancy. All state is in the encoder and the receiver that you hand in. One of each belongs to
 * one task. Where several tasks share an encoder, or others print to the same link, define
 * LAYERTAP_LOCK() and LAYERTAP_UNLOCK(); they stand in one block of code around a whole frame.
 *
 * Interrupts. Call nothing here from an interrupt: sending takes as long as the link does. Received
 * bytes belong into a ring buffer that the task empties into layertap_receive. Interrupts may stay
 * on while a frame is sent.
 */
#ifndef LAYERTAP_H_
#define LAYERTAP_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of this file and layertap_tflm.h; generated files compare it. */
#define LAYERTAP_DEVICE_VERSION 1

#define LAYERTAP_WIRE 1

/* Largest payload of one frame, bytes. Smaller pieces lose less to a bad link. */
#ifndef LAYERTAP_PIECE
#define LAYERTAP_PIECE 4096
#endif

/* Small writes are gathered up to this many bytes. */
#ifndef LAYERTAP_GATHER
#define LAYERTAP_GATHER 64
#endif

#ifndef LAYERTAP_LOCK
#define LAYERTAP_LOCK()
#define LAYERTAP_UNLOCK()
#endif

/* For a CRC unit: crc is that of the bytes before, 0 at the start, as in zlib's crc32. */
#ifndef LAYERTAP_CRC32
#define LAYERTAP_CRC32(crc, bytes, count) layertap_crc32(crc, bytes, count)
#endif

#if LAYERTAP_PIECE < 1 || LAYERTAP_PIECE > 65000
#error "LAYERTAP_PIECE must be from 1 to 65000: a frame holds at most 65,536 bytes"
#endif
#if LAYERTAP_GATHER < 1 || LAYERTAP_GATHER > 255
#error "LAYERTAP_GATHER must be from 1 to 255"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "layertap sends tensors as they lie in memory and therefore needs a little-endian processor"
#endif

/* In C++ every file of a program shares one copy of each function. */
#ifdef __cplusplus
#define LAYERTAP_FUNCTION inline
#else
#define LAYERTAP_FUNCTION static inline
#endif

enum {
  LAYERTAP_HELLO = 1,
  LAYERTAP_TENSOR = 2,
  LAYERTAP_DONE = 3,
  LAYERTAP_ANSWER = 4,
  LAYERTAP_ASK = 65,
  LAYERTAP_SELECT = 66,
  LAYERTAP_RULE = 67,
  LAYERTAP_INPUT = 68,
  LAYERTAP_RUN = 69
};

/* Why a HELLO is sent. */
enum { LAYERTAP_STARTED = 0, LAYERTAP_ASKED = 1, LAYERTAP_REPEATED = 2 };

/* What a board can do, bits of layertap_hello.able. */
enum { LAYERTAP_RUNS = 1, LAYERTAP_SELECTS = 2, LAYERTAP_RULES = 4 };

/* Status of an ANSWER. */
enum {
  LAYERTAP_OK = 0,
  LAYERTAP_INCOMPLETE = 1,
  LAYERTAP_OUT_OF_RANGE = 2,
  LAYERTAP_NO_ROOM = 3,
  LAYERTAP_CANNOT = 4,
  LAYERTAP_FAILED = 5
};

/* Forms of a tensor. */
enum { LAYERTAP_WHOLE = 0, LAYERTAP_SLICE = 1, LAYERTAP_SUMMARY = 2, LAYERTAP_HISTOGRAM = 3 };

/* Element types, numbered as TfLiteType. */
enum {
  LAYERTAP_FLOAT32 = 1,
  LAYERTAP_INT32 = 2,
  LAYERTAP_UINT8 = 3,
  LAYERTAP_INT64 = 4,
  LAYERTAP_BOOL = 6,
  LAYERTAP_INT16 = 7,
  LAYERTAP_COMPLEX64 = 8,
  LAYERTAP_INT8 = 9,
  LAYERTAP_FLOAT16 = 10,
  LAYERTAP_FLOAT64 = 11,
  LAYERTAP_COMPLEX128 = 12,
  LAYERTAP_UINT64 = 13,
  LAYERTAP_UINT32 = 16,
  LAYERTAP_UINT16 = 17,
  LAYERTAP_INT4 = 18,
  LAYERTAP_BFLOAT16 = 19
};

/* Writes bytes to the link, all of them, in order. */
typedef void (*layertap_write)(void *sink, const uint8_t *bytes, size_t count);

/* Set write and sink; zero is right for the rest. */
typedef struct {
  layertap_write write;
  void *sink;
  uint8_t sequence;
  uint8_t gathered;
  uint8_t gather[LAYERTAP_GATHER];
} layertap_encoder;

typedef struct {
  uint8_t reason;
  uint32_t able;
  uint32_t receive; /* largest content and CRC together that a command may have, bytes */
  uint32_t rules;   /* how many rules there is room for */
  uint32_t model;   /* layertap_crc32(0, ...) of the .tflite */
  uint32_t size;    /* bytes of the .tflite */
  uint32_t tensors; /* of all subgraphs */
  uint32_t arena;   /* bytes, 0 if not known */
  uint32_t used;    /* bytes of the arena in use, 0 if not known */
  uint32_t every;
  const char *name;    /* UTF-8, ends with NUL; cut after 63 bytes; may be NULL */
  const uint8_t *mask; /* (tensors + 7) / 8 bytes */
} layertap_hello;

typedef struct {
  uint32_t inference;
  uint32_t subgraph;
  uint32_t tensor;
  uint32_t iteration;
  uint8_t dtype;
  uint8_t form;
  uint8_t rank;    /* at most 15 */
  const int *dims; /* of the whole tensor, whatever the form */
  uint32_t first;  /* of a slice: its first element */
  uint32_t count;  /* of a slice: its elements; of a histogram: its bins */
  float low;       /* of a histogram */
  float high;
  const void *data;
  uint32_t bytes; /* of data: of what is sent, not of the whole tensor */
} layertap_tensor;

typedef struct {
  uint32_t tap; /* bit of the mask + 1; 0 forgets all rules */
  uint32_t every;
  uint8_t form;
  uint32_t a; /* slice: first; histogram: bins */
  uint32_t b; /* slice: count */
  float low;
  float high;
} layertap_rule;

/* What the host wants; only the part that type names is set. */
typedef struct {
  uint8_t type;
  uint8_t sequence;
  struct {
    uint32_t every;
    uint32_t first; /* byte of the mask */
    const uint8_t *mask;
    uint32_t count;
  } select;
  layertap_rule rule;
  struct {
    uint32_t input;
    uint32_t offset;
    const uint8_t *data;
    uint32_t count;
  } input;
  struct {
    uint32_t inference;
    uint8_t flags; /* 1: reset the model's state before */
    uint32_t check;
  } run;
} layertap_command;

enum { LAYERTAP_RESET_STATE = 1 };

/* Set buffer and size; zero is right for the rest. */
typedef struct {
  uint8_t *buffer;
  uint32_t size;
  uint32_t used;
  uint8_t state;
  uint8_t left;
  uint8_t code;
} layertap_receiver;

/* CRC-32 of Ethernet and zlib; four bits at a time, because 16 words are cheaper than 256. */
LAYERTAP_FUNCTION uint32_t layertap_crc32(uint32_t crc, const void *bytes, size_t count) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
      0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
      0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  const uint8_t *at = (const uint8_t *)bytes;
  crc = ~crc;
  while (count--) {
    crc ^= *at++;
    crc = (crc >> 4) ^ table[crc & 15];
    crc = (crc >> 4) ^ table[crc & 15];
  }
  return ~crc;
}

LAYERTAP_FUNCTION void layertap_flush(layertap_encoder *encoder) {
  /* USB sends packets of no bytes, too. */
  if (encoder->gathered) encoder->write(encoder->sink, encoder->gather, encoder->gathered);
  encoder->gathered = 0;
}

/* Long runs go straight to the sink; what is short waits for company. */
LAYERTAP_FUNCTION void layertap_gather(layertap_encoder *encoder, const uint8_t *bytes,
                                       uint32_t count) {
  uint8_t *place;
  if (count > LAYERTAP_GATHER - (uint32_t)encoder->gathered) layertap_flush(encoder);
  if (count > LAYERTAP_GATHER) {
    encoder->write(encoder->sink, bytes, count);
    return;
  }
  place = encoder->gather + encoder->gathered;
  encoder->gathered = (uint8_t)(encoder->gathered + count);
  while (count--) *place++ = *bytes++;
}

/* Content lies in three places: the header, the payload, the CRC. */
typedef struct {
  const uint8_t *at;
  uint32_t left;
} layertap_part;

/* How many bytes lie before the next 00, at most 254. */
LAYERTAP_FUNCTION uint32_t layertap_run(const layertap_part *part, const layertap_part *end) {
  uint32_t run = 0;
  for (; part < end; ++part) {
    uint32_t i;
    for (i = 0; i < part->left; ++i, ++run)
      if (run == 254 || part->at[i] == 0) return run;
  }
  return run;
}

/* Consistent Overhead Byte Stuffing: each run follows its length + 1, and stands for itself and the
 * 00 behind it, unless it is 254 long or the last. */
LAYERTAP_FUNCTION void layertap_stuff(layertap_encoder *encoder, layertap_part *part,
                                      const layertap_part *end) {
  for (;;) {
    uint32_t run = layertap_run(part, end);
    const uint8_t code = (uint8_t)(run + 1);
    layertap_gather(encoder, &code, 1);
    for (; part < end; ++part) {
      const uint32_t taken = run < part->left ? run : part->left;
      if (taken) layertap_gather(encoder, part->at, taken);
      part->at += taken;
      part->left -= taken;
      run -= taken;
      if (part->left) break;
    }
    if (part == end) return;
    if (code < 255) {
      ++part->at;
      --part->left;
    }
  }
}

/* The longest header: a histogram of 15 dimensions. A HELLO with its name is shorter. */
enum { LAYERTAP_HEADER = 128 };

typedef struct {
  uint32_t count;
  uint8_t bytes[LAYERTAP_HEADER];
} layertap_header;

LAYERTAP_FUNCTION void layertap_put_u8(layertap_header *header, uint32_t value) {
  header->bytes[header->count++] = (uint8_t)value;
}

LAYERTAP_FUNCTION void layertap_put_u32(layertap_header *header, uint32_t value) {
  memcpy(header->bytes + header->count, &value, sizeof value);
  header->count += sizeof value;
}

LAYERTAP_FUNCTION void layertap_put_f32(layertap_header *header, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  layertap_put_u32(header, bits);
}

LAYERTAP_FUNCTION void layertap_put_varint(layertap_header *header, uint32_t value) {
  for (; value > 127; value >>= 7) layertap_put_u8(header, value | 128);
  layertap_put_u8(header, value);
}

/* The sequence number is put in when the frame is sent. */
LAYERTAP_FUNCTION void layertap_begin(layertap_header *header, uint8_t type) {
  header->bytes[0] = type;
  header->count = 2;
}

LAYERTAP_FUNCTION void layertap_send(layertap_encoder *encoder, layertap_header *header,
                                     const void *payload, uint32_t bytes) {
  static const uint8_t mark[3] = {0x00, 0xF5, 0x00};
  layertap_part parts[3];
  uint32_t crc;
  LAYERTAP_LOCK();
  header->bytes[1] = encoder->sequence++;
  crc = LAYERTAP_CRC32(0, header->bytes, header->count);
  crc = LAYERTAP_CRC32(crc, payload, bytes);
  parts[0].at = header->bytes;
  parts[0].left = header->count;
  parts[1].at = bytes ? (const uint8_t *)payload : mark; /* NULL + 0 is undefined in C */
  parts[1].left = bytes;
  parts[2].at = (const uint8_t *)&crc;
  parts[2].left = sizeof crc;
  layertap_gather(encoder, mark, 2);
  layertap_stuff(encoder, parts, parts + 3);
  layertap_gather(encoder, mark + 2, 1);
  layertap_flush(encoder);
  LAYERTAP_UNLOCK();
}

LAYERTAP_FUNCTION uint32_t layertap_length(const char *text) {
  uint32_t length = 0;
  while (text && text[length]) ++length;
  return length;
}

LAYERTAP_FUNCTION void layertap_send_hello(layertap_encoder *encoder,
                                           const layertap_hello *hello) {
  layertap_header header;
  uint32_t length = layertap_length(hello->name), i;
  if (length > 63) {
    length = 63;
    /* Not through the middle of a character. */
    while (length && ((uint8_t)hello->name[length] & 0xC0) == 0x80) --length;
  }
  layertap_begin(&header, LAYERTAP_HELLO);
  layertap_put_u8(&header, LAYERTAP_WIRE);
  layertap_put_u8(&header, hello->reason);
  layertap_put_varint(&header, hello->able);
  layertap_put_varint(&header, hello->receive);
  layertap_put_varint(&header, hello->rules);
  layertap_put_u32(&header, hello->model);
  layertap_put_varint(&header, hello->size);
  layertap_put_varint(&header, hello->tensors);
  layertap_put_varint(&header, hello->arena);
  layertap_put_varint(&header, hello->used);
  layertap_put_varint(&header, hello->every);
  layertap_put_varint(&header, length);
  for (i = 0; i < length; ++i) layertap_put_u8(&header, (uint8_t)hello->name[i]);
  layertap_send(encoder, &header, hello->mask, (hello->tensors + 7) / 8);
}

LAYERTAP_FUNCTION void layertap_describe(layertap_header *header, const layertap_tensor *tensor) {
  uint32_t i;
  layertap_begin(header, LAYERTAP_TENSOR);
  layertap_put_varint(header, tensor->inference);
  layertap_put_varint(header, tensor->subgraph);
  layertap_put_varint(header, tensor->tensor);
  layertap_put_varint(header, tensor->iteration);
  layertap_put_u8(header, tensor->dtype);
  layertap_put_u8(header, (uint32_t)tensor->form << 4 | tensor->rank);
  for (i = 0; i < tensor->rank; ++i) layertap_put_varint(header, (uint32_t)tensor->dims[i]);
  if (tensor->form == LAYERTAP_SLICE) {
    layertap_put_varint(header, tensor->first);
    layertap_put_varint(header, tensor->count);
  } else if (tensor->form == LAYERTAP_HISTOGRAM) {
    layertap_put_varint(header, tensor->count);
    layertap_put_f32(header, tensor->low);
    layertap_put_f32(header, tensor->high);
  }
}

/* Returns how many frames were sent: one for each LAYERTAP_PIECE begun, at least one; none if there
 * are more than 15 dimensions. */
LAYERTAP_FUNCTION uint32_t layertap_send_tensor(layertap_encoder *encoder,
                                                const layertap_tensor *tensor) {
  layertap_header header;
  uint32_t offset = 0, frames = 0, described;
  if (tensor->rank > 15) return 0;
  layertap_describe(&header, tensor);
  described = header.count;
  do {
    const uint32_t left = tensor->bytes - offset;
    const uint32_t piece = left < LAYERTAP_PIECE ? left : LAYERTAP_PIECE;
    header.count = described;
    layertap_put_varint(&header, offset);
    layertap_send(encoder, &header, piece ? (const uint8_t *)tensor->data + offset : NULL, piece);
    offset += piece;
    ++frames;
  } while (offset < tensor->bytes);
  return frames;
}

/* status is a TfLiteStatus; tensors and frames: how many were sent in this inference. */
LAYERTAP_FUNCTION void layertap_send_done(layertap_encoder *encoder, uint32_t inference,
                                          uint8_t status, uint32_t tensors, uint32_t frames) {
  layertap_header header;
  layertap_begin(&header, LAYERTAP_DONE);
  layertap_put_varint(&header, inference);
  layertap_put_u8(&header, status);
  layertap_put_varint(&header, tensors);
  layertap_put_varint(&header, frames);
  layertap_send(encoder, &header, NULL, 0);
}

/* command and of: type and sequence of what is answered, both 0 when nothing was asked. text says
 * why, UTF-8, may be NULL. */
LAYERTAP_FUNCTION void layertap_send_answer(layertap_encoder *encoder, uint8_t command, uint8_t of,
                                            uint8_t status, const char *text) {
  layertap_header header;
  layertap_begin(&header, LAYERTAP_ANSWER);
  layertap_put_u8(&header, command);
  layertap_put_u8(&header, of);
  layertap_put_u8(&header, status);
  layertap_send(encoder, &header, text, layertap_length(text));
}

typedef struct {
  const uint8_t *at;
  uint32_t left;
  int bad;
} layertap_reader;

LAYERTAP_FUNCTION uint8_t layertap_take_u8(layertap_reader *reader) {
  if (reader->left == 0) {
    reader->bad = 1;
    return 0;
  }
  --reader->left;
  return *reader->at++;
}

LAYERTAP_FUNCTION uint32_t layertap_take_u32(layertap_reader *reader) {
  uint32_t value = 0;
  int shift;
  for (shift = 0; shift < 32; shift += 8) value |= (uint32_t)layertap_take_u8(reader) << shift;
  return value;
}

LAYERTAP_FUNCTION float layertap_take_f32(layertap_reader *reader) {
  const uint32_t bits = layertap_take_u32(reader);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

LAYERTAP_FUNCTION uint32_t layertap_take_varint(layertap_reader *reader) {
  uint32_t value = 0;
  int shift;
  for (shift = 0; shift < 35; shift += 7) {
    const uint8_t byte = layertap_take_u8(reader);
    const int over = shift == 28 && byte > 15;
    const int padded = shift > 0 && byte == 0;
    value |= (uint32_t)(byte & 127) << shift;
    if (over || padded) break;
    if (byte < 128) return value;
  }
  reader->bad = 1;
  return 0;
}

LAYERTAP_FUNCTION const uint8_t *layertap_take_rest(layertap_reader *reader, uint32_t *count) {
  *count = reader->left;
  reader->left = 0;
  return reader->at;
}

LAYERTAP_FUNCTION void layertap_take_rule(layertap_reader *reader, layertap_rule *rule) {
  rule->tap = layertap_take_varint(reader);
  rule->every = layertap_take_varint(reader);
  rule->form = layertap_take_u8(reader);
  rule->a = layertap_take_varint(reader);
  rule->b = layertap_take_varint(reader);
  rule->low = layertap_take_f32(reader);
  rule->high = layertap_take_f32(reader);
}

/* Content to command; 0 when a field is missing, malformed or one too many. A type that is not known
 * here is passed on, for an answer that says so. */
LAYERTAP_FUNCTION int layertap_parse(const uint8_t *content, uint32_t count,
                                     layertap_command *command) {
  layertap_reader reader = {content, count, 0};
  memset(command, 0, sizeof *command);
  command->type = layertap_take_u8(&reader);
  command->sequence = layertap_take_u8(&reader);
  switch (command->type) {
    case LAYERTAP_ASK:
      break;
    case LAYERTAP_SELECT:
      command->select.every = layertap_take_varint(&reader);
      command->select.first = layertap_take_varint(&reader);
      command->select.mask = layertap_take_rest(&reader, &command->select.count);
      break;
    case LAYERTAP_RULE:
      layertap_take_rule(&reader, &command->rule);
      break;
    case LAYERTAP_INPUT:
      command->input.input = layertap_take_varint(&reader);
      command->input.offset = layertap_take_varint(&reader);
      command->input.data = layertap_take_rest(&reader, &command->input.count);
      break;
    case LAYERTAP_RUN:
      command->run.inference = layertap_take_varint(&reader);
      command->run.flags = layertap_take_u8(&reader);
      command->run.check = layertap_take_u32(&reader);
      break;
    default:
      reader.left = 0;
  }
  return !reader.bad && reader.left == 0;
}

LAYERTAP_FUNCTION int layertap_frame_ends(const layertap_receiver *receiver,
                                          layertap_command *command) {
  uint32_t crc;
  if (receiver->left || receiver->used < 2 + sizeof crc) return 0;
  memcpy(&crc, receiver->buffer + receiver->used - sizeof crc, sizeof crc);
  if (crc != LAYERTAP_CRC32(0, receiver->buffer, receiver->used - sizeof crc)) return 0;
  return layertap_parse(receiver->buffer, receiver->used - (uint32_t)sizeof crc, command);
}

/* Where the receiver is: in text, behind a 00, in a frame. */
enum { LAYERTAP_IN_TEXT = 0, LAYERTAP_BEHIND_ZERO = 1, LAYERTAP_IN_FRAME = 2 };

LAYERTAP_FUNCTION void layertap_unstuff(layertap_receiver *receiver, uint8_t byte) {
  const int is_code = receiver->left == 0;
  /* A code stores the 00 that its predecessor owes, unless that was 255 or the mark F5. */
  if (is_code) {
    const uint8_t before = receiver->code;
    receiver->code = byte;
    receiver->left = (uint8_t)(byte - 1);
    if (before == 255) return;
    byte = 0;
  } else {
    --receiver->left;
  }
  if (receiver->used == receiver->size) {
    receiver->state = LAYERTAP_IN_TEXT;
    return;
  }
  receiver->buffer[receiver->used++] = byte;
}

/* Takes one byte from the link. Returns 1 when it completed an undamaged command; what the command
 * points to lies in the receiver's buffer until the next call. Damaged and oversize frames are
 * dropped without a word, as the format wants it. */
LAYERTAP_FUNCTION int layertap_receive(layertap_receiver *receiver, uint8_t byte,
                                       layertap_command *command) {
  int whole = 0;
  if (byte == 0) {
    whole = receiver->state == LAYERTAP_IN_FRAME && layertap_frame_ends(receiver, command);
    receiver->state = LAYERTAP_BEHIND_ZERO;
  } else if (receiver->state == LAYERTAP_IN_FRAME) {
    layertap_unstuff(receiver, byte);
  } else if (receiver->state == LAYERTAP_BEHIND_ZERO && byte == 0xF5) {
    receiver->state = LAYERTAP_IN_FRAME;
    receiver->used = 0;
    receiver->left = 0;
    receiver->code = 255;
  } else {
    receiver->state = LAYERTAP_IN_TEXT;
  }
  return whole;
}

/* Whether the tensor of this bit is sent. */
LAYERTAP_FUNCTION int layertap_in_mask(const uint8_t *mask, uint32_t bit) {
  return mask[bit / 8] >> (bit % 8) & 1;
}

/* Puts a SELECT's bytes into a mask of so many bytes; the status to answer with. */
LAYERTAP_FUNCTION uint8_t layertap_set_mask(uint8_t *mask, uint32_t bytes,
                                            const layertap_command *command) {
  const uint32_t first = command->select.first, count = command->select.count;
  if (command->select.every == 0) return LAYERTAP_OUT_OF_RANGE;
  if (first > bytes || count > bytes - first) return LAYERTAP_OUT_OF_RANGE;
  if (count) memcpy(mask + first, command->select.mask, count);
  return LAYERTAP_OK;
}

/* Bytes of one element; 0 for int4, two of which share a byte, and for what is not known. */
LAYERTAP_FUNCTION uint32_t layertap_element_bytes(uint8_t dtype) {
  static const uint8_t bytes[20] = {0, 4, 4, 1, 8, 0, 1, 2, 8, 1, 2, 8, 16, 8, 0, 0, 4, 2, 0, 2};
  return dtype < sizeof bytes ? bytes[dtype] : 0;
}

/* Infinities and NaN stay what they are. */
LAYERTAP_FUNCTION double layertap_float16(uint32_t half) {
  const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  const double sign = half >> 15 ? -1.0 : 1.0;
  const uint64_t wide = exponent == 31 ? 2047 : exponent + 1008;
  const uint64_t bits = wide << 52 | (uint64_t)fraction << 42;
  double value;
  if (exponent == 0) return sign * fraction * (1.0 / 16777216.0);
  memcpy(&value, &bits, sizeof value);
  return sign * value;
}

LAYERTAP_FUNCTION float layertap_bfloat16(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Whether comparing and averaging has a meaning. */
LAYERTAP_FUNCTION int layertap_has_order(uint8_t dtype) {
  return layertap_element_bytes(dtype) && dtype != LAYERTAP_COMPLEX64 &&
         dtype != LAYERTAP_COMPLEX128;
}

/* An element of an integer type; a uint64 less 2^63, which keeps the order. */
LAYERTAP_FUNCTION int64_t layertap_integer(uint8_t dtype, const void *element) {
  uint64_t bits = 0;
  memcpy(&bits, element, layertap_element_bytes(dtype));
  switch (dtype) {
    case LAYERTAP_INT8:
      return (int8_t)bits;
    case LAYERTAP_INT16:
      return (int16_t)bits;
    case LAYERTAP_INT32:
      return (int32_t)bits;
    case LAYERTAP_UINT64:
      return (int64_t)(bits ^ (uint64_t)1 << 63);
    default:
      return (int64_t)bits;
  }
}

/* Any element that is not complex, as a number. */
LAYERTAP_FUNCTION double layertap_number(uint8_t dtype, const void *element) {
  union {
    uint16_t half;
    float single;
    double wide;
    uint64_t whole;
  } value;
  memcpy(&value, element, layertap_element_bytes(dtype));
  switch (dtype) {
    case LAYERTAP_FLOAT16:
      return layertap_float16(value.half);
    case LAYERTAP_BFLOAT16:
      return layertap_bfloat16(value.half);
    case LAYERTAP_FLOAT32:
      return value.single;
    case LAYERTAP_FLOAT64:
      return value.wide;
    case LAYERTAP_UINT64:
      return (double)value.whole;
    default:
      return (double)layertap_integer(dtype, element);
  }
}

/* By its bits, because -ffast-math takes x != x for false. */
LAYERTAP_FUNCTION int layertap_is_nan(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits << 1 > (uint64_t)2047 << 53;
}

/* Integers of 64 bits do not fit a double, so that they are compared as integers. */
LAYERTAP_FUNCTION int layertap_less(uint8_t dtype, const void *a, const void *b) {
  switch (dtype) {
    case LAYERTAP_FLOAT16:
    case LAYERTAP_BFLOAT16:
    case LAYERTAP_FLOAT32:
    case LAYERTAP_FLOAT64:
      return layertap_number(dtype, a) < layertap_number(dtype, b);
    default:
      return layertap_integer(dtype, a) < layertap_integer(dtype, b);
  }
}

/* Smallest and largest element and the mean as f32, NaN left out; returns the bytes written. With
 * no element that is a number: two times 0 and a mean of NaN. */
LAYERTAP_FUNCTION uint32_t layertap_summarize(uint8_t dtype, const void *data, uint32_t count,
                                              uint8_t *result) {
  const uint32_t size = layertap_element_bytes(dtype);
  const uint8_t *at = (const uint8_t *)data;
  const uint8_t *least = NULL, *most = NULL;
  const uint32_t nan = 0x7FC00000u;
  double sum = 0;
  uint32_t numbers = 0;
  memset(result, 0, 2 * size);
  for (; count--; at += size) {
    const double value = layertap_number(dtype, at);
    if (layertap_is_nan(value)) continue;
    sum += value;
    ++numbers;
    if (!least || layertap_less(dtype, at, least)) least = at;
    if (!most || layertap_less(dtype, most, at)) most = at;
  }
  memcpy(result + 2 * size, &nan, sizeof nan);
  if (numbers) {
    const float mean = (float)(sum / numbers);
    memcpy(result, least, size);
    memcpy(result + size, most, size);
    memcpy(result + 2 * size, &mean, sizeof mean);
  }
  return 2 * size + (uint32_t)sizeof nan;
}

/* Counts of so many bins of equal width. low < high, both finite. */
LAYERTAP_FUNCTION void layertap_count(uint8_t dtype, const void *data, uint32_t count, float low,
                                      float high, uint32_t bins, uint32_t *counts) {
  const uint32_t size = layertap_element_bytes(dtype);
  const uint8_t *at = (const uint8_t *)data;
  const double scale = bins / ((double)high - (double)low);
  memset(counts, 0, bins * sizeof *counts);
  for (; count--; at += size) {
    const double value = layertap_number(dtype, at);
    const double place = (value - (double)low) * scale;
    if (layertap_is_nan(value)) continue;
    ++counts[place < 0 ? 0 : place < bins ? (uint32_t)place : bins - 1];
  }
}

LAYERTAP_FUNCTION uint8_t layertap_take_slice(const layertap_rule *rule, layertap_tensor *tensor,
                                              uint32_t size) {
  const uint32_t elements = tensor->bytes / size;
  if (rule->a > elements || rule->b > elements - rule->a) return LAYERTAP_OUT_OF_RANGE;
  tensor->first = rule->a;
  tensor->count = rule->b;
  if (rule->a) tensor->data = (const uint8_t *)tensor->data + rule->a * size;
  tensor->bytes = rule->b * size;
  return LAYERTAP_OK;
}

/* Turns a whole tensor into what the rule asks for; returns the status to answer with, and leaves
 * the tensor alone unless it is LAYERTAP_OK. The result of a summary (up to 20 bytes) or a histogram
 * (a word per bin) is put in room, and must stay there until the tensor is sent. */
LAYERTAP_FUNCTION uint8_t layertap_reduce(const layertap_rule *rule, layertap_tensor *tensor,
                                          uint32_t *room, uint32_t words) {
  const uint8_t dtype = tensor->dtype;
  const uint32_t size = layertap_element_bytes(dtype);
  const int ordered = layertap_has_order(dtype);
  uint8_t status = LAYERTAP_CANNOT;
  if (rule->form == LAYERTAP_WHOLE) return LAYERTAP_OK;
  if (rule->form == LAYERTAP_SLICE && size) {
    status = layertap_take_slice(rule, tensor, size);
  } else if (rule->form == LAYERTAP_SUMMARY && ordered) {
    if (2 * size + 4 > words * 4) return LAYERTAP_NO_ROOM;
    tensor->bytes = layertap_summarize(dtype, tensor->data, tensor->bytes / size, (uint8_t *)room);
    tensor->data = room;
    status = LAYERTAP_OK;
  } else if (rule->form == LAYERTAP_HISTOGRAM && ordered) {
    /* Written so that NaN is out of range too; the width of an f32 range is below 7e38. */
    if (!(rule->low < rule->high && (double)rule->high - (double)rule->low < 7e38) || !rule->a)
      return LAYERTAP_OUT_OF_RANGE;
    if (rule->a > words) return LAYERTAP_NO_ROOM;
    layertap_count(dtype, tensor->data, tensor->bytes / size, rule->low, rule->high, rule->a, room);
    tensor->count = rule->a;
    tensor->low = rule->low;
    tensor->high = rule->high;
    tensor->data = room;
    tensor->bytes = rule->a * 4;
    status = LAYERTAP_OK;
  }
  if (status == LAYERTAP_OK) tensor->form = rule->form;
  return status;
}

#endif
