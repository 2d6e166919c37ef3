"""The zoo: programs that people really run, each carried through kills and restores and compared byte for byte."""
