package main

import (
	"testing"

	"github.com/certctl/certctl/internal/commandlines/commandlinestest"
)

// What people are told to type is understood.
func TestCommandLinesOfDocuments(t *testing.T) { commandlinestest.Check(t, newRoot, 20) }
