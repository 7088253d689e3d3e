#ifndef BOARD_H_
#define BOARD_H_

#include "image.h"

/* Runs until the host is gone, or as many inferences as the image wants. */
void board_main(const image_header *image);

#endif
