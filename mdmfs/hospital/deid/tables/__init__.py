"""Facts of the DICOM standard in the form that the engine compiles its rules from; generated, not edited by hand."""
