"""The workspace: what the tree did to files, saving it at the cut, putting it back."""
