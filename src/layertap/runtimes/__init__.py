"""One package per framework; :mod:`layertap.runtimes.registry` knows them all."""
