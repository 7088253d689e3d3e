// @generated@
// setup() and loop() are in main.cpp. This names the library that TensorFlow Lite Micro comes from:
// with Arduino_TensorFlowLite write <TensorFlowLite.h>. This file is yours.
#include <Chirale_TensorFlowLite.h>
