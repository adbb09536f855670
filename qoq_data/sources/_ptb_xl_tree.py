def write_tree(folder, seed, patients):
    raise NotImplementedError
