"""A Dataset of given items, for the tests of data."""

from torch.utils.data import Dataset


class Items(Dataset):
    """A map-style Dataset; `classes` are the names of the classes, as those of torchvision have them."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]
