/* The link to the host, with the faults that the image orders. */
#ifndef LINK_H_
#define LINK_H_

#include <stddef.h>
#include <stdint.h>

#include "image.h"

/* `restart` is called for RESET and must not return. */
void link_open(const image_header *image, void (*restart)(void));
/* After each start of the board: the garbage. */
void link_started(void);
void link_write(void *sink, const uint8_t *bytes, size_t count);
void link_text(const char *text);
int link_read(uint8_t *byte, int wait);
/* The fault of this kind that is ordered for this frame (or inference), or NULL. */
const fault_order *link_fault(uint32_t kind, uint32_t frame);

#endif
