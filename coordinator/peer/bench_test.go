package peer

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkCall(b *testing.B) {
	w := newTown(b)
	from, to := w.member("a"), w.member("b")
	request := make([]byte, 4<<10)
	b.Run("one at a time", func(b *testing.B) {
		for b.Loop() {
			_, err := from.Call(b.Context(), "b", to.address, "echo", request)
			require.NoError(b, err)
		}
	})
	b.Run("many at a time", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, err := from.Call(b.Context(), "b", to.address, "echo", request)
				require.NoError(b, err)
			}
		})
	})
}

// A connection costs two signatures and their verification on each side.
func BenchmarkConnect(b *testing.B) {
	w := newTown(b)
	from, to := w.member("a"), w.member("b")
	taken := to.streams()
	streams := from.streams()
	for b.Loop() {
		out, err := streams.Dial(addressOf(to), patience)
		require.NoError(b, err)
		in, err := taken.Accept()
		require.NoError(b, err)
		out.Close()
		in.Close()
	}
}

func BenchmarkStream(b *testing.B) {
	w := newTown(b)
	from, to := w.member("a"), w.member("b")
	taken := to.streams()
	out, err := from.streams().Dial(addressOf(to), patience)
	require.NoError(b, err)
	in, err := taken.Accept()
	require.NoError(b, err)
	ended := make(chan struct{})
	go func(in net.Conn) {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}(in)
	block := make([]byte, 256<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		_, err := out.Write(block)
		require.NoError(b, err)
	}
	out.Close()
	<-ended
	in.Close()
}
