"""What our fast paths cost beside the libraries they stand in for, and beside the least that can be done."""
