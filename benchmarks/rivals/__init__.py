"""The same job written as a careful engineer would write it with other tools."""
