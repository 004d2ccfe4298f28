"""What stands in a report: numbers found beside the run or computed, pictures, words, and the page that holds them."""
