/* Elements of every dtype of the wire, as numbers. */
#ifndef ELEMENTS_H_
#define ELEMENTS_H_

#include <stdint.h>

double load_element(uint32_t dtype, const void *data, uint32_t index);
/* Numbers out of an integer's range become its nearest; float16 and bfloat16 are cut, not rounded,
 * so that only what they hold exactly comes back. A complex number gets no imaginary part. */
void store_element(uint32_t dtype, void *data, uint32_t index, double value);

#endif
