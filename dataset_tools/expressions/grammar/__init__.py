"""The rooms of the parser: a cursor over lexemes, and readers that each know one construct."""
