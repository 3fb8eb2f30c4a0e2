package join

// ReadAnswer is readAnswer for tests.
var ReadAnswer = readAnswer
