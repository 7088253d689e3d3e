#include "outline.h"
