"""The backbone: fairseq's HuBERT, its checkpoints, and the features of its layers."""
