/* Two files of one program that include layertap.h, see everything.c. */
int first(void);
int second(void);

int main(void) { return first() == second() ? first() : 100; }
