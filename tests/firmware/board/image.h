/* What the board runs: a model and its orders, laid out by tests/firmware/testboard.py. All words
 * are little-endian; places are bytes from the start of the image. */
#ifndef IMAGE_H_
#define IMAGE_H_

#include <stdint.h>

#define IMAGE_MAGIC 0x3150544Cu /* LTP1 */

enum fault_kind {
  NO_FAULT,
  DROP_BYTE,  /* byte `byte` of frame `frame` is not sent */
  FLIP_BIT,   /* a bit of it is turned over */
  DROP_FRAME, /* the frame is not sent */
  SWAP,       /* the frame is sent after its successor */
  TEXT,       /* text comes in front of that byte */
  RESET,      /* the board starts anew at that byte */
  HANG,       /* nothing is sent from there on */
  LEAVE,      /* the program ends there with exit code 3 (host only) */
  GARBAGE,    /* `byte` random bytes at the start */
  REBOOT,     /* starts anew `byte` milliseconds after each HELLO */
  CRLF,       /* each 0A becomes 0D 0A */
  FAIL,       /* inference number `frame` fails half way */
  DEAF        /* byte number `byte` of what the host sends is lost */
};

/* Frames count from power-on, resets do not start the count again. With `every` the fault comes back
 * every so many frames (or bytes). */
typedef struct {
  uint32_t kind, frame, byte, every;
} fault_order;

enum { FAULTS = 4, NAMES = 24 };

typedef struct {
  uint32_t magic, bytes;
  uint32_t crc, size; /* of the .tflite */
  uint32_t subgraphs, tensors, operators;
  uint32_t able, receive, rules, every;
  uint32_t runs;       /* of a board that runs on its own: inferences until it stops, 0 without end */
  uint32_t pause;      /* milliseconds between them */
  uint32_t chatter;    /* print a line after each inference */
  uint32_t arena, used;
  uint32_t subgraph_place, tensor_place, operator_place, mask_place;
  char name[64];
  fault_order faults[FAULTS];
} image_header;

typedef struct {
  uint32_t first_tensor, tensors, first_operator, operators;
  uint32_t inputs, outputs;
  int32_t input[NAMES], output[NAMES];
} image_subgraph;

typedef struct {
  uint32_t dtype, constant, variable, rank;
  int32_t dims[8];
  uint32_t bytes;
  uint32_t place; /* of a constant in the image, of others in the heap */
} image_tensor;

enum operator_code {
  CAST,
  RESHAPE,
  BROADCAST_TO,
  RELU,
  ADD,
  SUB,
  MAXIMUM,
  MINIMUM,
  FULLY_CONNECTED,
  QUANTIZE,
  DEQUANTIZE,
  SVDF,
  LESS,
  IF,
  WHILE
};

typedef struct {
  uint32_t code, inputs, outputs;
  int32_t input[8], output[8]; /* tensors of the subgraph, -1 for none */
  uint32_t calls[2];
  float scale;
  int32_t zero;
} image_operator;

#endif
