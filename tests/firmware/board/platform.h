/* What a machine must have to be the board. */
#ifndef PLATFORM_H_
#define PLATFORM_H_

#include <stddef.h>
#include <stdint.h>

/* Next byte from the host: 1 if there was one, 0 if not (only without wait), -1 when no more come. */
int platform_read(uint8_t *byte, int wait);
void platform_write(const uint8_t *bytes, size_t count);
void platform_pause(uint32_t milliseconds);
/* Ends the program, or stops for good where programs do not end. */
void platform_leave(int code);

#endif
