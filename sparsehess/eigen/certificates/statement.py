"""What a certificate proves: the statement that `check --explain` prints."""

STATEMENT = """\
What is certified of eigenpairs (λ, x) of A x = λ M x, A symmetric and M symmetric positive semidefinite
(M = I where there is none), and what is not.

1. Scaling. Everything below is judged of D A D and D M D, with D diagonal, of powers of two, such that
   all rows are of about one size. Eigenvalues and inertia of a pencil do not change under a congruence
   (Sylvester), and a power of two rounds nothing. So neither units of variables nor numbers that stand
   for infinity, such as penalties on supports, decide what is small.
2. Each pair. The residual |r| = |A x - λ M x| is computed anew from the matrices and the vector, and is no
   more than the tolerance times |A| |x| + min(|λ| |M x|, |A x|): the pair is an exact one of a matrix that is
   that near. Or |D⁻¹ r| is no more than the tolerance times |λ| |D x|, D² the sums of the rows of |M|: it is
   one of a mass that is that near row by row, as eigenvalues that penalties make are. λ is the Rayleigh
   quotient of x to 1e-8 of it, or to a thousand times what the last digits of the entries can move it. The
   vectors are M-orthogonal to 1e-8. From these follows that an eigenvalue is near each λ, not which one in
   the order it is, nor that there is no other.
3. None missed. A - σM = L D Lᵀ at each end σ of the interval of the count. By Sylvester's law there are as
   many eigenvalues below σ as D has negative ones (1 x 1 and 2 x 2 pivots), and the difference between two
   ends is the number in between. The count is certified if it is the number of pairs found, if all pairs
   that are returned lie in the interval, if the margin is above 10, and if no error bar of a pair reaches an
   end: |(A - σM)⁻¹ r| of all residuals together, in the norm of M, bounds the sine of the angle between the
   pairs and the eigenvectors on their side of σ (Davis and Kahan), and is below 1/2. Then no eigenvector inside
   is orthogonal to what was found. It is measured by four solves with random combinations of the residuals,
   which see too little with a probability of 3e-7, or by |r| over the distance from σ where that is small.
4. Margin. A factorization in floating point is the exact one of A - σM + E. With W the diagonal of the sums
   of the rows of |A| + |σ||M|, the inertia stays as it is while |xᵀEx| < |μ| xᵀWx for all x, μ the
   eigenvalue of least size of (A - σM) x = μ W x (Weyl): no unit of a variable, and no large entry elsewhere,
   plays a part. The margin is |μ| over the size of E in the same measure, the least one of the ends. Both are
   measured at the factors themselves, by two to four steps of inverse iteration from a random vector, E by the
   residuals of the solves, and E is not taken to be less than half of the last digit of each entry. With a
   margin above 1 no eigenvalue has changed sides. Assumed is that inverse iteration shows the least |μ|, and
   the effect of E, to within the factor of ten that is asked for beyond that: measured, not proven.
5. Null vectors that were given are projected out from both sides: what is solved, counted and judged is
   the problem on their M-orthogonal complement, by the inertia of the bordered matrix (Haynsworth). They are
   counted as zeros of the whole problem. That they are null vectors is checked row by row, to 1e-8, or to
   ten times the error of the Hessian: it is not proven that there are no others. Those that an objective has
   projected out whatever A says of them, as rigid motions of atoms that are not at rest, are not checked: the
   problem without them is certified, not A, and the answer tells how far A resists them.
6. Infinite eigenvalues. Where M is singular they are counted apart, from the rank of M and the signs of
   what A is on its null space, and taken off each count. A pencil that is singular, with A and M having a
   null vector in common, is refused.
7. More eigenvalues from the last one asked for to the end of the count than were asked for, most often equal
   ones: it is proven that none is missing before the last one, to a millionth of it, and how many lie from
   there to the end; which of them are returned is open.

Not proven:
- That the matrix is the one that was meant. Entries of differences have the error that `verification`
  measured, and that of the Hessian moves each eigenvalue by up to its norm (Weyl). Its error bar is two
  standard deviations of that, to first order, as far as the noise of the gradient was measured.
- Digits that a file has not. Entries of 7 digits are taken as they are; the line `digits` says how far
  their rounding can move each eigenvalue, to first order, and that may be across an end of the count.
- Eigenvalues without a factorization. Products alone prove residuals; that none is missing is then not
  counted, and the report says so.
"""
