/*
 * bcryptprimitives.dll for wine, which has none before version 9: Go programs
 * do not start without its one function ProcessPrng. For tests only.
 *
 * RtlGenRandom, exported by advapi32.dll under the name SystemFunction036, is
 * wine's source of random numbers. It takes a length of 32 bits.
 */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
	const ULONG most = 1u << 20;

	while (length > 0) {
		ULONG part = length < most ? (ULONG)length : most;

		if (!SystemFunction036(buffer, part))
			return FALSE;
		buffer += part;
		length -= part;
	}
	return TRUE;
}
