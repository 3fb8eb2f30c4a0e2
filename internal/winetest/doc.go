// Package winetest is for tests of the Windows build that run under wine too.
package winetest
