"""Firmware for a model: its sources, written by layertap."""
